"""One request over HTTP/2 by prior knowledge that is held until its end: `h2_hold.py HOST:PORT AUTHORITY PATH`.

Prints `status=…`, `ended=…` (how the stream ended), `goaway=…` (the error code of each GOAWAY) and `closed=yes` when
the other side closed the connection in the end.
"""

import socket
import struct
import sys

import hpack

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4

WHERE, AUTHORITY, PATH = sys.argv[1:]
host, _, port = WHERE.rpartition(":")
connection = socket.create_connection((host, int(port)), timeout=30)
stream = connection.makefile("rb")


def send(kind, flags=0, number=0, payload=b""):
    frame = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + payload
    try:
        connection.sendall(frame)
    except OSError:
        pass


fields = [(":method", "GET"), (":scheme", "http"), (":authority", AUTHORITY), (":path", PATH)]
connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
send(SETTINGS)
send(HEADERS, END_STREAM | END_HEADERS, 1, hpack.Encoder().encode(fields))
decoder = hpack.Decoder()
while True:
    try:
        head = stream.read(9)
    except OSError as error:
        print(f"closed={error}")
        break
    if len(head) < 9:
        print("closed=yes")
        break
    length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
    payload = stream.read(length)
    if kind == SETTINGS and not flags & ACK:
        send(SETTINGS, ACK)
    elif kind == PING and not flags & ACK:
        send(PING, ACK, 0, payload)
    elif kind == HEADERS:
        fields = dict(decoder.decode(payload))
        if ":status" in fields:
            print(f"status={fields[':status']}")
    elif kind == RESET:
        print(f"ended=reset {int.from_bytes(payload, 'big')}")
    elif kind == GOAWAY:
        print(f"goaway={int.from_bytes(payload[4:8], 'big')}")
    if kind in (DATA, HEADERS) and flags & END_STREAM:
        print("ended=yes")
