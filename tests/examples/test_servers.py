"""The TCP, TLS, UDP and chat servers, by plain blocking sockets."""

import contextlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import pytest
from conftest import SERVERS

TIMEOUT = 30


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)


def read_all(connection):
    """Until the other side closes."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def reset(connection):
    """Close with a RST in place of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def exchange(connection, data, finish):
    """Send everything while everything comes back, then finish sending; what came back."""

    def send():
        connection.sendall(data)
        finish()

    sender = threading.Thread(target=send)
    sender.start()
    answer = read_all(connection)
    sender.join()
    return answer


def wait_closed_by_server(connection):
    with contextlib.suppress(ConnectionResetError):
        assert read_all(connection) == b""


# ---- TCP echo ------------------------------------------------------------------------------


def test_tcp_echo_returns_what_many_clients_send(shared_server):
    server = shared_server("tcp_echo")
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(50)]
        for round_ in range(3):
            for number, connection in enumerate(connections):
                connection.sendall(b"%d %d\n" % (round_, number))
            for number, connection in enumerate(connections):
                assert connection.makefile("rb").readline() == b"%d %d\n" % (round_, number)


def test_tcp_echo_returns_megabytes_and_a_half_closed_end(shared_server):
    data = os.urandom(5_000_000)
    with connect(shared_server("tcp_echo")) as connection:
        assert exchange(connection, data, lambda: connection.shutdown(socket.SHUT_WR)) == data


def test_tcp_echo_outlives_resets(shared_server):
    server = shared_server("tcp_echo")
    for _ in range(20):
        connection = connect(server)
        connection.sendall(b"x" * 100_000)
        reset(connection)
    with connect(server) as connection:
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"


def test_tcp_echo_stops_reading_from_who_does_not_read(start):
    """What the server holds for such a client is bounded: sending stalls; then it is sent away."""
    server = start("tcp_echo", "--timeout", "0.5")
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.setblocking(False)
        sent = 0
        with pytest.raises(ConnectionError):
            while sent < 1 << 30:
                try:
                    sent += connection.send(b"x" * 65536)
                except BlockingIOError:
                    time.sleep(0.01)
    assert sent < 64 << 20


def test_tcp_echo_refuses_connections_beyond_its_limit(start):
    server = start("tcp_echo", "--connections", "2")
    with connect(server) as first, connect(server) as second:
        for connection in (first, second):
            connection.sendall(b"in")
            assert connection.recv(10) == b"in"
        with connect(server) as third:
            wait_closed_by_server(third)
    # A place that was left is free for the next.
    for _ in range(100):
        with connect(server) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"in")
            if connection.recv(10) == b"in":
                return
        time.sleep(0.05)
    pytest.fail("the place did not become free")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_tcp_echo_ends_in_order(start, signum):
    """What has been echoed still arrives; then the connection ends, and the server with 0."""
    server = start("tcp_echo")
    with connect(server) as connection:
        connection.sendall(b"before the end")
        assert connection.recv(100, socket.MSG_PEEK)
        server.process.send_signal(signum)
        assert read_all(connection) == b"before the end"
        assert server.process.wait(TIMEOUT) == 0
    with pytest.raises(ConnectionRefusedError):
        connect(server)


# ---- TLS echo ------------------------------------------------------------------------------


def certificate(server):
    """The file with the certificate, by the line that names it."""
    return server.lines[0].rpartition(" is ")[2]


def connect_tls(server):
    context = ssl.create_default_context(cafile=certificate(server))
    return context.wrap_socket(connect(server), server_hostname="localhost")


def test_tls_echo_returns_megabytes(shared_server):
    data = os.urandom(3_000_000)
    received = bytearray()
    with connect_tls(shared_server("tls_echo")) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        while len(received) < len(data):
            received += connection.recv(65536)
        sender.join()
        assert connection.version() == "TLSv1.3"
    assert received == data


def test_tls_echo_is_trusted_by_its_certificate_alone(shared_server):
    server = shared_server("tls_echo")
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError), connect(server) as connection:
        context.wrap_socket(connection, server_hostname="localhost")
    context = ssl.create_default_context(cafile=certificate(server))
    with pytest.raises(ssl.SSLCertVerificationError), connect(server) as connection:
        context.wrap_socket(connection, server_hostname="elsewhere.example")


def test_tls_echo_outlives_clients_that_do_not_speak_tls(shared_server):
    server = shared_server("tls_echo")
    for nonsense in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
        with connect(server) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                # An alert at most.
                assert len(read_all(connection)) < 20
    connection = connect(server)
    reset(connection)
    with connect_tls(server) as connection:
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"


def run_client(host, server, trusted):
    loop = "erlang" if host == "vm" else host
    command = [sys.executable, str(SERVERS / "tls_echo.py"), "--loop", loop]
    return subprocess.run(
        [*command, "--client", "grüß dich", "--certificate", trusted, "--port", str(server.port)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_tls_client_checks_the_certificate(host, shared_server, start):
    server = shared_server("tls_echo")
    done = run_client(host, server, certificate(server))
    assert (done.returncode, done.stdout) == (0, "grüß dich\n"), done.stderr
    other = start("tls_echo")
    done = run_client(host, server, certificate(other))
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr


# ---- UDP echo ------------------------------------------------------------------------------


def test_udp_echo_returns_datagrams_whole(shared_server):
    server = shared_server("udp_echo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect(("127.0.0.1", server.port))
        for data in (b"x", os.urandom(1400), os.urandom(60_000)):
            client.send(data)
            assert client.recv(65536) == data


def test_udp_echo_outlives_clients_that_are_gone(shared_server):
    server = shared_server("udp_echo")
    for _ in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"and away", ("127.0.0.1", server.port))
    test_udp_echo_returns_datagrams_whole(shared_server)


@pytest.mark.skipif(os.geteuid() != 0, reason="a port below 1024 is root's to bind")
def test_udp_echo_does_not_answer_services(shared_server):
    server = shared_server("udp_echo")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        service.bind(("127.0.0.1", 7))
        service.setblocking(False)
        client.settimeout(TIMEOUT)
        service.sendto(b"loop", ("127.0.0.1", server.port))
        # By the time that this one is answered, the other would have been.
        client.sendto(b"answer", ("127.0.0.1", server.port))
        assert client.recv(100) == b"answer"
        with pytest.raises(BlockingIOError):
            service.recv(100)


# ---- chat ----------------------------------------------------------------------------------


class ChatClient:
    def __init__(self, server, name):
        self.socket = connect(server)
        self.lines = self.socket.makefile("r", newline="\r\n")
        assert self.read() == "Your name?"
        self.say(name)

    def say(self, line):
        self.socket.sendall(line.encode() + b"\n")

    def read(self):
        return self.lines.readline().rstrip("\r\n")

    def read_until(self, expected):
        """Skips what else is told: the arrivals of others come at any time."""
        while (line := self.read()) != expected:
            assert line, f"the end before {expected!r}"

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.lines.close()
        self.socket.close()


def test_chat_tells_each_line_to_the_others(shared_server):
    server = shared_server("chat")
    with ChatClient(server, "ada") as ada:
        assert ada.read() == "* hello ada, 1 here"
        with ChatClient(server, "grace") as grace:
            assert grace.read() == "* hello grace, 2 here"
            assert ada.read() == "* grace is here"
            ada.say("hello\x1b[2J\tall")
            assert grace.read() == "ada: hello[2Jall"
            grace.say("/who")
            assert grace.read() == "* ada, grace"
            grace.say("/quit")
            assert ada.read() == "* grace has left"
        ada.say("/quit")
        assert ada.read() == ""


def test_chat_refuses_names_that_are_taken_or_bad(shared_server):
    server = shared_server("chat")
    with ChatClient(server, "linus") as linus:
        linus.read_until("* hello linus, 1 here")
        for name in ("linus", "", "x" * 33):
            with ChatClient(server, name) as other:
                assert other.read() == "That name is not free."
                assert other.read() == ""
        linus.say("/quit")
        assert linus.read() == ""


def test_chat_sends_away_who_writes_lines_without_end(shared_server):
    with ChatClient(shared_server("chat"), "shout") as shout:
        shout.read_until("* hello shout, 1 here")
        with contextlib.suppress(ConnectionError):
            shout.socket.sendall(b"x" * 100_000)
        with contextlib.suppress(ConnectionError):
            assert shout.read() == ""


def test_chat_sends_away_who_does_not_read_and_delays_nobody(start):
    server = start("chat")
    with ChatClient(server, "deaf") as deaf, ChatClient(server, "loud") as loud:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loud.read_until("* hello loud, 2 here")
        stop = threading.Event()

        def shout():
            while not stop.is_set():
                loud.say("x" * 1000)

        shouter = threading.Thread(target=shout)
        shouter.start()
        try:
            loud.read_until("* deaf has left")
        finally:
            stop.set()
            shouter.join()
        loud.say("/who")
        loud.read_until("* loud")


def test_chat_tells_its_members_of_the_end(start):
    server = start("chat")
    with ChatClient(server, "last") as last:
        last.read_until("* hello last, 1 here")
        assert server.stop() == 0
        last.read_until("* the server ends")
        last.read_until("")


# ---- all of them ---------------------------------------------------------------------------


def test_wrong_arguments_end_the_program_with_their_reason(host):
    from conftest import Server

    with pytest.raises(AssertionError, match="invalid int value: 'many'"):
        Server(host, "tcp_echo", "--connections", "many")


def test_a_port_that_is_taken_ends_the_program_with_its_reason(host):
    from conftest import Server

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match=r"(?i)address already in use"):
            Server(host, "tcp_echo", "--port", port)
