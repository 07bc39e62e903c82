"""What idle connections cost: memory of the server's own, and CPU."""

import time

from processes import COLUMNS, Load, Server

CONNECTIONS = 10_000
TLS_CONNECTIONS = 2_000
SECONDS = 2.0


def measure(tools, column, kind, connections):
    """(bytes per connection, CPU ms per second while nothing happens)"""
    server = Server(tools.server_command(column, kind))
    try:
        # What is allocated once is no connection's.
        first = Load(tools.load_command(kind, server.port, 100, 1))
        first.run(0.1)
        first.close()
        time.sleep(0.2)
        before = server.own_memory()
        load = Load(tools.load_command(kind, server.port, connections, 1))
        # Each has been accepted when each has been answered.
        load.run(0.01)
        time.sleep(0.5)
        grown = server.own_memory() - before
        spent = sum(server.thread_times().values())
        time.sleep(SECONDS)
        spent = sum(server.thread_times().values()) - spent
        load.close()
    finally:
        server.close()
    return grown / connections, spent / SECONDS * 1000


def table(tools, columns, options):
    connections = CONNECTIONS // 10 if options.quick else CONNECTIONS
    title = f"{connections:,} idle connections** (mark: under 2,048 bytes of ours each, no CPU)"
    return show(tools, columns, "protocol", connections, title)


def tls_table(tools, columns, options):
    connections = TLS_CONNECTIONS // 10 if options.quick else TLS_CONNECTIONS
    columns = [name for name in columns if name not in ("floor", "rloop")]
    return show(tools, columns, "tls", connections, f"{connections:,} idle TLS connections**")


def show(tools, columns, kind, connections, title):
    print(f"\n**{title}\n")
    print("| server | bytes each | CPU ms per second |\n|---|---|---|")
    found = {}
    for name in columns:
        found[name] = measure(tools, name, kind, connections)
        size, cpu = found[name]
        print(f"| {COLUMNS[name]} | {size:.0f} | {cpu:.2f} |", flush=True)
    return found
