"""A WebSocket server of HTTP/1 that does what the path says: `ws_server.py PORT`."""

import asyncio
import http
import sys

from websockets.asyncio.server import serve

LARGEST = 32 << 20


async def echo(socket):
    """Each message back in the same fragments."""
    while True:
        fragments, text = [], False
        async for fragment in socket.recv_streaming():
            text = isinstance(fragment, str)
            fragments.append(fragment)
        if len(fragments) == 1:
            await socket.send(fragments[0])
        else:
            await socket.send(fragments if fragments else ("" if text else b""))


async def handle(socket):
    path = socket.request.path
    if path.startswith("/echo"):
        await echo(socket)
    elif path.startswith("/close/"):
        code, _, reason = path.removeprefix("/close/").partition("/")
        await socket.close(int(code), reason)
    elif path.startswith("/told"):
        # Tells what the client closed with, on the next connection.
        await socket.send(repr(handle.told))
    elif path.startswith("/ping"):
        await (await socket.ping(b"are you there"))
        await socket.send("ponged")
    elif path.startswith("/break"):
        await socket.recv()
        socket.transport.abort()
    elif path.startswith("/quiet"):
        try:
            await socket.recv()
        except Exception:
            pass
        handle.told = (socket.close_code, socket.close_reason)


handle.told = None


def refuse(connection, request):
    if request.path.startswith("/refuse"):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
    if request.path.startswith("/health"):
        return connection.respond(http.HTTPStatus.OK, "well\n")
    return None


async def main():
    port = int(sys.argv[1])
    async with serve(handle, "", port, max_size=LARGEST, process_request=refuse):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
