"""Checks of WebSockets over HTTP/1, each by name: `ws_client.py AUTHORITY CHECK…`. Prints `ok CHECK` for each."""

import asyncio
import os
import socket
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

LARGEST = 32 << 20
AUTHORITY = sys.argv[1]
URL = f"ws://{AUTHORITY}"


def dial(path, **more):
    return connect(URL + path, max_size=LARGEST, open_timeout=20, **more)


async def sizes():
    async with dial("/echo") as ws:
        for size in (0, 1, 125, 126, 127, 65535, 65536, 1 << 20):
            data = os.urandom(size)
            await ws.send(data)
            assert await ws.recv() == data, size
            text = "ä" * size
            await ws.send(text)
            assert await ws.recv() == text, size


async def large():
    data = os.urandom(16 << 20)
    for compression in (None, "deflate"):
        async with dial("/echo", compression=compression) as ws:
            await ws.send(data)
            assert await ws.recv() == data, compression


async def fragments():
    async with dial("/echo", compression=None) as ws:
        sent = [os.urandom(size) for size in (1, 0, 70000, 5)] + [b"x"] * 500
        await ws.send(sent)
        got = [piece async for piece in ws.recv_streaming()]
        assert [piece for piece in got if piece] == [piece for piece in sent if piece]
        assert len(got) >= len(sent), (len(got), len(sent))


async def pings():
    async with dial("/echo") as ws:
        for _ in range(20):
            await asyncio.wait_for(await ws.ping(os.urandom(125)), 10)


async def pinged():
    async with dial("/ping") as ws:
        assert await ws.recv() == "ponged"


async def closes():
    for code, reason in ((1000, ""), (1001, "away"), (1011, "x" * 123), (3000, "mine"), (4999, "last")):
        async with dial(f"/close/{code}/{reason}") as ws:
            try:
                await ws.recv()
                raise AssertionError("no close")
            except ConnectionClosed as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (code, reason), closed
        ws = await dial("/quiet")
        await ws.close(code, reason)
        async with dial("/told") as ws:
            assert await ws.recv() == repr((code, reason))


async def breaks():
    """A server that breaks the connection is seen as that, not as an end."""
    async with dial("/break") as ws:
        await ws.send("now")
        try:
            await ws.recv()
            raise AssertionError("no end")
        except ConnectionClosed as closed:
            assert closed.rcvd is None, closed


def raw():
    host, _, port = AUTHORITY.partition(":")
    stream = socket.create_connection((host, int(port or 80)), timeout=20)
    return stream


def asks(path, more=""):
    return (
        f"GET {path} HTTP/1.1\r\nhost: {AUTHORITY}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    ).encode()


def answer(stream, kept=b""):
    """One answer with its body, and what came behind it."""
    while b"\r\n\r\n" not in kept:
        piece = stream.recv(65536)
        assert piece, kept
        kept += piece
    head, _, kept = kept.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(kept) < length:
        piece = stream.recv(65536)
        assert piece, kept
        kept += piece
    return head, kept[:length], kept[length:]


async def masking():
    """A frame that is not masked is the client's fault, and the server's close says so: nothing in between touches masks."""
    stream = raw()
    stream.sendall(asks("/echo"))
    head, _, kept = answer(stream)
    assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head
    # A masked frame, with the mask of RFC 6455 section 5.7, comes back unmasked.
    stream.sendall(bytes([0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]))
    while len(kept) < 7:
        kept += stream.recv(100)
    assert kept == b"\x81\x05Hello", kept
    stream.sendall(b"\x81\x05Hello")
    kept = b""
    while len(kept) < 4:
        piece = stream.recv(100)
        assert piece, kept
        kept += piece
    assert kept[0] == 0x88 and int.from_bytes(kept[2:4], "big") == 1002, kept


async def early():
    """Frames sent right behind the request's head wait for the 101."""
    stream = raw()
    stream.sendall(asks("/echo") + bytes([0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]))
    head, _, kept = answer(stream)
    assert head.startswith(b"HTTP/1.1 101 "), head
    while len(kept) < 7:
        kept += stream.recv(100)
    assert kept == b"\x81\x05Hello", kept


async def refusals():
    try:
        async with dial("/refuse"):
            raise AssertionError("it was not refused")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403, refused
        assert refused.response.body == b"not you\n", refused
    # Bytes behind a refused upgrade are requests: never sent on raw.
    stream = raw()
    stream.sendall(asks("/refuse") + b"GET /health HTTP/1.1\r\nhost: " + AUTHORITY.encode() + b"\r\n\r\n")
    head, body, kept = answer(stream)
    assert head.startswith(b"HTTP/1.1 403 ") and body == b"not you\n", (head, body)
    head, body, kept = answer(stream, kept)
    assert head.startswith(b"HTTP/1.1 200 ") and body == b"well\n", (head, body)
    stream = raw()
    stream.sendall(asks("/refuse") + b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\r\n\r\n")
    head, body, kept = answer(stream)
    assert head.startswith(b"HTTP/1.1 403 "), head
    head, body, kept = answer(stream, kept)
    assert head.startswith(b"HTTP/1.1 400 "), head


async def left_out():
    """A server that knows no upgrades gets the request without the wish, and its answer is the answer."""
    stream = raw()
    stream.sendall(asks("/plain"))
    head, body, _ = answer(stream)
    assert head.startswith(b"HTTP/1.1 200 ") and body == b"GET /plain\n", (head, body)


async def many():
    async def one(number):
        async with dial("/echo") as ws:
            for turn in range(20):
                await ws.send(f"{number} {turn}")
                assert await ws.recv() == f"{number} {turn}"

    await asyncio.gather(*(one(number) for number in range(120)))


for name in sys.argv[2:]:
    asyncio.run(asyncio.wait_for(globals()[name](), 120))
    print("ok", name, flush=True)
