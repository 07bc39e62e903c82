"""aiohttp, uvicorn with websockets, and httpx over anyio, unmodified, on the loop.

The real packages at the releases that tests/requirements.txt pins.
"""

import asyncio
import json
import os
import ssl

import aiohttp
import anyio
import httpx
import pytest
import trustme
import uvicorn
import websockets
from aiohttp import web


@pytest.fixture(scope="module")
def tls():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def hello(request):
    return web.json_response({"hello": request.match_info["name"]})


async def echo_body(request):
    response = web.StreamResponse()
    await response.prepare(request)
    async for chunk in request.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


async def echo_websocket(request):
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for message in connection:
        if message.type is aiohttp.WSMsgType.TEXT:
            await connection.send_str(message.data.upper())
        elif message.type is aiohttp.WSMsgType.BINARY:
            await connection.send_bytes(message.data[::-1])
    return connection


class AiohttpServer:
    """An aiohttp application on a free port; `async with` gives its address."""

    def __init__(self, folder=None, ssl_context=None):
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/hello/{name}", hello)
        app.router.add_post("/echo", echo_body)
        app.router.add_get("/websocket", echo_websocket)
        if folder is not None:
            app.router.add_static("/files", folder)
        self.runner = web.AppRunner(app)
        self.ssl_context = ssl_context

    async def __aenter__(self):
        await self.runner.setup()
        await web.TCPSite(self.runner, "localhost", 0, ssl_context=self.ssl_context).start()
        port = self.runner.addresses[0][1]
        return f"{'https' if self.ssl_context else 'http'}://localhost:{port}"

    async def __aexit__(self, *exc_info):
        await self.runner.cleanup()


@pytest.mark.asyncio
async def test_aiohttp_serves_many_aiohttp_clients():
    async with AiohttpServer() as url, aiohttp.ClientSession() as session:

        async def ask(number):
            async with session.get(f"{url}/hello/{number}") as response:
                return (await response.json())["hello"]

        assert await asyncio.gather(*map(ask, range(100))) == [str(i) for i in range(100)]


@pytest.mark.asyncio
async def test_aiohttp_streams_large_bodies_both_ways():
    data = os.urandom(5_000_000)

    async def chunks():
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    async with (
        AiohttpServer() as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/echo", data=chunks()) as response,
    ):
        assert await response.read() == data


@pytest.mark.asyncio
async def test_aiohttp_speaks_tls(tls):
    server_tls, client_tls = tls
    connector = aiohttp.TCPConnector(ssl=client_tls)
    async with (
        AiohttpServer(ssl_context=server_tls) as url,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        async with session.get(f"{url}/hello/tls") as response:
            assert await response.json() == {"hello": "tls"}
        async with session.post(f"{url}/echo", data=b"x" * 1_000_000) as response:
            assert len(await response.read()) == 1_000_000


@pytest.mark.asyncio
async def test_aiohttp_websockets_echo():
    async with (
        AiohttpServer() as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/websocket") as connection,
    ):
        for i in range(50):
            await connection.send_str(f"message {i}")
            assert await connection.receive_str() == f"MESSAGE {i}"
        data = os.urandom(300_000)
        await connection.send_bytes(data)
        assert await connection.receive_bytes() == data[::-1]


@pytest.mark.asyncio
async def test_aiohttp_serves_static_files(tmp_path):
    """aiohttp sends files through loop.sendfile."""
    data = os.urandom(2_000_000)
    (tmp_path / "file.bin").write_bytes(data)
    async with (
        AiohttpServer(folder=tmp_path) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/files/file.bin") as response,
    ):
        assert await response.read() == data


@pytest.mark.asyncio
async def test_aiohttp_gives_up_after_its_timeout():
    async def hang(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    timeout = aiohttp.ClientTimeout(total=0.05)
    async with server, aiohttp.ClientSession(timeout=timeout) as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(f"http://127.0.0.1:{port}/")
    await asyncio.sleep(0.01)


async def application(scope, receive, send):
    """A bare ASGI application: HTTP answers what it was sent, websockets echo in capitals."""
    if scope["type"] == "http":
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = json.dumps({"path": scope["path"], "length": len(body)}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})


class UvicornServer:
    """uvicorn inside the running loop; `async with` gives its port."""

    def __init__(self):
        config = uvicorn.Config(
            application,
            host="127.0.0.1",
            port=0,
            log_level="error",
            ws="websockets-sansio",
            lifespan="off",
        )
        self.server = uvicorn.Server(config)
        # The test's own Ctrl-C handling stays.
        self.server.install_signal_handlers = lambda: None

    async def __aenter__(self):
        self.task = asyncio.ensure_future(self.server.serve())
        while not self.server.started:
            await asyncio.sleep(0.001)
        return self.server.servers[0].sockets[0].getsockname()[1]

    async def __aexit__(self, *exc_info):
        self.server.should_exit = True
        await self.task


@pytest.mark.asyncio
async def test_httpx_over_anyio_asks_uvicorn():
    async with UvicornServer() as port, httpx.AsyncClient() as client:
        answers = []

        async def ask(number):
            response = await client.post(
                f"http://127.0.0.1:{port}/{number}", content=b"x" * number * 1000
            )
            answers.append(response.json())

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, number)
        answers.sort(key=lambda answer: answer["length"])
        expected = [{"path": f"/{i}", "length": i * 1000} for i in range(50)]
        assert answers == expected


@pytest.mark.asyncio
async def test_httpx_speaks_tls(tls):
    server_tls, client_tls = tls
    async with (
        AiohttpServer(ssl_context=server_tls) as url,
        httpx.AsyncClient(verify=client_tls) as client,
    ):
        assert (await client.get(f"{url}/hello/httpx")).json() == {"hello": "httpx"}


@pytest.mark.asyncio
async def test_websockets_talk_to_uvicorn():
    async with UvicornServer() as port:

        async def talk(number):
            async with websockets.connect(f"ws://127.0.0.1:{port}/") as connection:
                for i in range(10):
                    await connection.send(f"from {number}: {i}")
                    assert await connection.recv() == f"FROM {number}: {i}"
            return number

        assert await asyncio.gather(*map(talk, range(20))) == list(range(20))


@pytest.mark.asyncio
async def test_anyio_runs_threads_streams_and_subprocesses():
    async def serve(stream):
        async with stream:
            async for chunk in stream:
                await stream.send(chunk.upper())

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"anyio")
            assert await stream.receive() == b"ANYIO"
        group.cancel_scope.cancel()
    await listener.aclose()
    assert await anyio.to_thread.run_sync(sum, [1, 2, 3]) == 6
    assert (await anyio.run_process(["echo", "anyio"])).stdout == b"anyio\n"
    with anyio.move_on_after(0.005) as scope:
        await anyio.sleep(30)
    assert scope.cancelled_caught


def test_uvicorn_runs_on_our_loop_from_its_command_line(run_script, loop_name):
    """`uvicorn --loop erlang:new_event_loop` is how a user puts a server on this loop."""
    done = run_script(
        """
        import threading, urllib.request
        import uvicorn
        async def application(scope, receive, send):
            name = type(asyncio.get_running_loop()).__name__.encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": name})
        config = uvicorn.Config(
            application, host="127.0.0.1", port=0, log_level="error", lifespan="off",
            loop="erlang:new_event_loop" if sys.argv[1] == "erlang" else "asyncio",
        )
        server = uvicorn.Server(config)
        def ask():
            while not server.started:
                time.sleep(0.001)
            port = server.servers[0].sockets[0].getsockname()[1]
            print(urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode())
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *args: None)
        threading.Thread(target=ask).start()
        server.run()
        """
    )
    names = {"erlang": "ErlangEventLoop", "asyncio": "_UnixSelectorEventLoop"}
    assert done.stdout.strip() == names[loop_name], done.stderr
