"""The TLS echo servers under measurement: python serve.py LOOP KIND CERTIFICATE.

CERTIFICATE is a PEM file with the key and the chain.  Prints the port, then serves until standard
input ends.
"""

import asyncio
import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "echo"))

from servers import KINDS, loop_factory


async def create_server(name, factory, context):
    loop = asyncio.get_running_loop()
    if name == "aiofastnet":
        import aiofastnet

        return await aiofastnet.create_server(loop, factory, "127.0.0.1", 0, ssl=context)
    return await loop.create_server(factory, "127.0.0.1", 0, ssl=context)


async def serve(name, kind, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    server = await create_server(name, KINDS[kind], context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    loop_name, kind, certificate = sys.argv[1:]
    runs_on = "uvloop" if loop_name == "aiofastnet" else loop_name
    if loop_name == "sslproto":
        from erlang import tls

        tls.NATIVE = False
        runs_on = "erlang"
    with asyncio.Runner(loop_factory=loop_factory(runs_on)) as runner:
        runner.run(serve(loop_name, kind, certificate))
