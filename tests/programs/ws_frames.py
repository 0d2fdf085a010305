"""WebSocket frames, as far as the programs of HTTP/2 need them."""

import os


def build(opcode, data, masked, final=True):
    head = bytes([opcode | (0x80 if final else 0)])
    flag = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([flag | len(data)])
    elif len(data) < 65536:
        head += bytes([flag | 126]) + len(data).to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + len(data).to_bytes(8, "big")
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + unmask(mask, data)


def unmask(mask, data):
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def take(buffer):
    """The first whole frame as (first byte, masked, data), and what is left; None while it is not whole."""
    if len(buffer) < 2:
        return None
    length, at = buffer[1] & 0x7F, 2
    wide = {126: 2, 127: 8}.get(length, 0)
    if wide:
        if len(buffer) < 2 + wide:
            return None
        length, at = int.from_bytes(buffer[2 : 2 + wide], "big"), 2 + wide
    masked = bool(buffer[1] & 0x80)
    mask = bytes(buffer[at : at + 4]) if masked else b""
    at += len(mask) if masked else 0
    if len(buffer) < at + length:
        return None
    data = bytes(buffer[at : at + length])
    return (buffer[0], masked, unmask(mask, data) if masked else data), buffer[at + length :]
