"""A web site on aiohttp that never sees a socket: Erlang brings it byte channels (gateway.erl)."""

from aiohttp import WSMsgType, web

import erlang

BODY = 1 << 24  # bytes of a body, at most
_server = None


async def hello(request):
    return web.json_response({"hello": request.match_info["name"]})


async def echo(request):
    response = web.StreamResponse()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        # Waits while Erlang, and so the client, does not read.
        await response.write(piece)
    return response


async def websocket(request):
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for message in connection:
        if message.type is WSMsgType.TEXT:
            await connection.send_str(message.data.upper())
    return connection


async def start():
    global _server
    app = web.Application(client_max_size=BODY)
    app.router.add_get("/hello/{name}", hello)
    app.router.add_post("/echo", echo)
    app.router.add_get("/websocket", websocket)
    runner = web.AppRunner(app)
    await runner.setup()
    _server = runner.server


async def serve(channel_ref):
    """A connection: aiohttp's protocol over the channel."""
    await erlang.connect_byte_channel(_server, channel_ref)
