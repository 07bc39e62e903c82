"""A web server on aiohttp.

    ./run example web [--port 8080]                         inside the Erlang VM
    ./run python examples/servers/web.py [--loop uvloop]
    curl http://127.0.0.1:8080/hello/world

| request | answer |
|---|---|
| `GET /hello/NAME` | JSON with the name, and with the loop that serves |
| `POST /echo` | the body, piece by piece as it comes, up to a limit |
| `GET /websocket` | a websocket that answers each text with its capitals |

aiohttp is pinned in tests/requirements.txt.
"""

import asyncio

import serving
from aiohttp import WSMsgType, web

BODY = 1 << 24  # bytes of a body, at most
MESSAGE = 1 << 16  # bytes of a websocket message, at most


async def hello(request):
    loop = type(asyncio.get_running_loop()).__name__
    return web.json_response({"hello": request.match_info["name"], "loop": loop})


async def echo(request):
    if request.content_length is not None and request.content_length > BODY:
        raise web.HTTPRequestEntityTooLarge(BODY, request.content_length)
    response = web.StreamResponse()
    await response.prepare(request)
    length = 0
    async for piece in request.content.iter_any():
        length += len(piece)
        if length > BODY:
            # The answer has begun: cutting it off is all that can be said.
            request.transport.abort()
            break
        # Waits while the client does not read.
        await response.write(piece)
    return response


async def websocket(request):
    connection = web.WebSocketResponse(heartbeat=30.0, max_msg_size=MESSAGE)
    await connection.prepare(request)
    request.app[OPEN].add(connection)
    try:
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                await connection.send_str(message.data.upper())
    finally:
        request.app[OPEN].discard(connection)
    return connection


OPEN = web.AppKey("open", set)


async def close_websockets(app):
    for connection in list(app[OPEN]):
        await connection.close(code=1001, message=b"the server ends")


def limits(requests, timeout):
    """At most so many requests at the same time; none but a websocket may take longer."""
    under_way = 0

    @web.middleware
    async def middleware(request, handler):
        nonlocal under_way
        if under_way >= requests:
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "1"})
        under_way += 1
        try:
            if handler is websocket:
                return await handler(request)
            async with asyncio.timeout(timeout):
                return await handler(request)
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        finally:
            under_way -= 1

    return middleware


def application(options):
    app = web.Application(middlewares=[limits(options.connections, options.timeout)])
    app[OPEN] = set()
    app.on_shutdown.append(close_websockets)
    app.router.add_get("/hello/{name}", hello)
    app.router.add_post("/echo", echo)
    app.router.add_get("/websocket", websocket)
    return app


async def main(arguments):
    parser = serving.Parser("web", "Web server", port=8080)
    parser.add_limits(timeout=30.0)
    options = parser.parse_args(arguments)
    runner = web.AppRunner(
        application(options),
        keepalive_timeout=options.timeout,
        lingering_time=serving.GRACE,
        shutdown_timeout=serving.GRACE,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port, backlog=1024).start()
        serving.announce("web", runner.addresses[0])
        await asyncio.get_running_loop().create_future()
    finally:
        # Requests under way get their answers.
        await runner.cleanup()


if __name__ == "__main__":
    serving.run(main)
