"""Checks of WebSockets over HTTP/2 (RFC 8441), each by name: `ws_h2_client.py AUTHORITY CHECK…`.

Prints `ok CHECK` for each.
"""

import os
import socket
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

import ws_frames

AUTHORITY = sys.argv[1]


class Client:
    def __init__(self):
        host, _, port = AUTHORITY.partition(":")
        self.socket = socket.create_connection((host, int(port or 80)), timeout=30)
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(8 << 20)
        self.answers, self.bytes, self.ended, self.reset = {}, {}, set(), {}
        self.settled = False
        self.flush()
        self.until(lambda: self.settled)
        announced = self.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
        assert announced == 1, announced

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def until(self, holds):
        while not holds():
            data = self.socket.recv(1 << 20)
            assert data, "the connection ended"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.RemoteSettingsChanged):
                    self.settled = True
                elif isinstance(event, h2.events.ResponseReceived):
                    self.answers[event.stream_id] = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.bytes[event.stream_id] += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.add(event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    self.reset[event.stream_id] = event.error_code
                    self.ended.add(event.stream_id)
            self.flush()

    def open(self, path, protocol="websocket"):
        number = self.h2.get_next_available_stream_id()
        self.bytes[number] = bytearray()
        fields = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":path", path),
            (":authority", AUTHORITY),
            ("sec-websocket-version", "13"),
        ]
        self.h2.send_headers(number, fields)
        self.flush()
        self.until(lambda: number in self.answers or number in self.reset)
        return number, int(self.answers.get(number, {}).get(":status", 0))

    def get(self, path):
        number = self.h2.get_next_available_stream_id()
        self.bytes[number] = bytearray()
        fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", AUTHORITY)]
        self.h2.send_headers(number, fields, end_stream=True)
        self.flush()
        self.until(lambda: number in self.ended)
        return int(self.answers[number][":status"]), bytes(self.bytes[number])

    def send(self, number, data):
        data = memoryview(data)
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data))
            if room > 0:
                self.h2.send_data(number, bytes(data[:room]))
                data = data[room:]
                self.flush()
            else:
                before = self.h2.local_flow_control_window(number)
                self.until(lambda: self.h2.local_flow_control_window(number) != before)
        self.flush()

    def frame(self, number):
        self.until(lambda: ws_frames.take(self.bytes[number]) is not None or number in self.ended)
        (first, masked, data), self.bytes[number] = ws_frames.take(self.bytes[number])
        assert not masked
        return first, data


def echo(client, number, size):
    data = os.urandom(size)
    client.send(number, ws_frames.build(2, data, True))
    got = bytearray()
    while True:
        first, piece = client.frame(number)
        got += piece
        if first & 0x80:
            break
    assert got == data, size


def talks():
    client = Client()
    number, status = client.open("/echo")
    assert status == 200, status
    fields = client.answers[number]
    assert "sec-websocket-accept" not in fields and "mesh-upgrade" not in fields, fields
    for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
        echo(client, number, size)
    # A ping comes back as a pong, and a close with its code.
    client.send(number, ws_frames.build(9, b"ping", True))
    assert client.frame(number) == (0x8A, b"ping")
    client.send(number, ws_frames.build(8, (3001).to_bytes(2, "big") + b"bye", True))
    first, data = client.frame(number)
    assert (first, data[:2]) == (0x88, (3001).to_bytes(2, "big")), (first, data)
    client.until(lambda: number in client.ended)
    assert number not in client.reset, client.reset


def large():
    client = Client()
    number, status = client.open("/echo")
    assert status == 200, status
    echo(client, number, 16 << 20)


def fragments():
    client = Client()
    number, _ = client.open("/echo")
    pieces = [os.urandom(size) for size in (3, 70000, 0, 9)]
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        client.send(number, ws_frames.build(0 if index else 2, piece, True, last))
    got, opcodes = bytearray(), []
    while True:
        first, piece = client.frame(number)
        opcodes.append(first & 0x0F)
        got += piece
        if first & 0x80:
            break
    assert got == b"".join(pieces) and opcodes[0] == 2 and set(opcodes[1:]) == {0}, opcodes


def beside():
    """WebSockets and requests share a connection."""
    client = Client()
    sockets = [client.open("/echo")[0] for _ in range(20)]
    status, _ = client.get("/health")
    assert status == 200, status
    for turn in range(5):
        for number in sockets:
            echo(client, number, 1000 + turn)


def refusals():
    client = Client()
    number, status = client.open("/refuse")
    assert status == 403, status
    client.until(lambda: number in client.ended)
    assert bytes(client.bytes[number]) == b"not you\n", client.bytes[number]
    status, _ = client.get("/health")
    assert status == 200, status


def ignored():
    """A 2xx of a program that did not care must not look like an agreement."""
    client = Client()
    number, status = client.open("/health")
    assert status == 501, status


def unknown():
    client = Client()
    for protocol in ("h2c", "no/such/thing"):
        number, status = client.open("/echo", protocol)
        assert status == 400, (protocol, status)


def taken_back():
    """A reset reaches the program, and other streams go on."""
    client = Client()
    number, _ = client.open("/echo")
    other, _ = client.open("/echo")
    echo(client, number, 10)
    client.h2.reset_stream(number, 8)
    client.flush()
    echo(client, other, 10)


for name in sys.argv[2:]:
    globals()[name]()
    print("ok", name, flush=True)
