"""A TLS echo server with a fresh self-signed certificate for localhost, and its client.

    ./run example tls_echo [--port 7443]                    inside the Erlang VM
    ./run python examples/servers/tls_echo.py [--loop uvloop]
    ./run python examples/servers/tls_echo.py --client TEXT --certificate FILE

The server writes its certificate to a file and prints the name.  The client trusts this
certificate and no other, and checks the name in it.
"""

import asyncio
import os
import ssl
import tempfile

import serving

PIECE = 65536
HANDSHAKE_TIMEOUT = 10.0


async def make_certificate(folder):
    """A key and a self-signed certificate for localhost, in files of the folder."""
    key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "certificate.pem")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", key, "-out", certificate),
    ]
    openssl = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await openssl.communicate()
    if openssl.returncode != 0:
        raise OSError(f"openssl failed: {errors.decode(errors='replace')}")
    return key, certificate


async def serve(options):
    async def echo(reader, writer):
        while True:
            async with asyncio.timeout(options.timeout):
                data = await reader.read(PIECE)
                if not data:
                    return
                writer.write(data)
                await writer.drain()

    with tempfile.TemporaryDirectory(prefix="tls_echo.") as folder:
        key, certificate = await make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        print(f"tls_echo: the certificate is {certificate}", flush=True)
        server = serving.StreamServer("tls_echo", echo, options.connections)
        await server.serve(
            options.host,
            options.port,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
            ssl_shutdown_timeout=serving.GRACE,
        )


async def ask(options):
    """Send the text, print what comes back."""
    data = options.client.encode()
    async with asyncio.timeout(options.timeout):
        context = ssl.create_default_context(cafile=options.certificate)
        reader, writer = await asyncio.open_connection(
            options.host, options.port, ssl=context, server_hostname="localhost"
        )
        try:
            writer.write(data)
            answer = await reader.readexactly(len(data))
        finally:
            await serving.close(writer)
    print(answer.decode())


async def main(arguments):
    parser = serving.Parser("tls_echo", "TLS echo server", port=7443)
    parser.add_limits()
    parser.add_argument("--client", metavar="TEXT", help="be the client: send this text")
    parser.add_argument("--certificate", metavar="FILE", help="what the client trusts")
    options = parser.parse_args(arguments)
    if options.client is None:
        await serve(options)
    elif options.certificate is None:
        parser.error("the client needs --certificate")
    else:
        await ask(options)


if __name__ == "__main__":
    serving.run(main)
