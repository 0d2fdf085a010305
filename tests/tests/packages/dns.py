"""The ordinary DNS server of the test's network: knows one name, and writes down every question."""
import socket
import struct

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.88.0.1", 53))
while True:
    query, peer = server.recvfrom(1500)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    name = ".".join(labels).lower()
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    with open("/test/asked", "a") as asked:
        asked.write(f"{name}\n")
    question = query[12 : at + 5]
    known = name == "plain.example"
    answers = 1 if known and kind == 1 else 0
    flags = 0x8180 if known else 0x8183
    head = query[:2] + struct.pack(">HHHHH", flags, 1, answers, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 7])
    server.sendto(head + question + (record if answers else b""), peer)
