"""A server of HTTP/2 with prior knowledge: `ws_h2_server.py PORT announce|silent`.

With `announce` it takes WebSockets by extended CONNECT (RFC 8441) and echoes their frames; everything else is
answered with what was asked.
"""

import asyncio
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

import ws_frames

ANNOUNCE = sys.argv[2] == "announce"


class Stream:
    def __init__(self, websocket):
        self.websocket = websocket
        self.received = bytearray()
        self.waiting = bytearray()
        self.ends = False


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.streams = {}
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        if ANNOUNCE:
            announced = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=announced)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(8 << 20)
        self.flush()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.request(event.stream_id, event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.data(event.stream_id, event.data)
            elif isinstance(event, h2.events.StreamEnded):
                stream = self.streams.get(event.stream_id)
                if stream and stream.websocket:
                    stream.ends = True
            elif isinstance(event, h2.events.StreamReset):
                self.streams.pop(event.stream_id, None)
        for number in list(self.streams):
            self.send(number)
        self.flush()

    def request(self, number, headers):
        fields = dict(headers)
        if fields[":method"] == "CONNECT":
            assert ANNOUNCE and fields.get(":protocol") == "websocket", fields
            assert "sec-websocket-key" not in fields and "mesh-upgrade" not in fields, fields
            if fields[":path"].startswith("/refuse"):
                self.h2.send_headers(number, [(":status", "403"), ("content-length", "8")])
                self.h2.send_data(number, b"not you\n", end_stream=True)
                return
            assert fields.get("sec-websocket-version") == "13", fields
            self.streams[number] = Stream(True)
            self.h2.send_headers(number, [(":status", "200")])
            return
        body = f"{fields[':method']} {fields[':path']}\n".encode()
        self.h2.send_headers(number, [(":status", "200"), ("content-length", str(len(body)))])
        self.h2.send_data(number, body, end_stream=True)

    def data(self, number, data):
        stream = self.streams.get(number)
        if not stream:
            return
        stream.received += data
        while (found := ws_frames.take(stream.received)) is not None:
            (first, masked, payload), stream.received = found
            assert masked
            opcode = first & 0x0F
            if opcode == 9:
                stream.waiting += ws_frames.build(10, payload, False)
            elif opcode == 8:
                stream.waiting += ws_frames.build(8, payload, False)
                stream.ends = True
            elif opcode != 10:
                stream.waiting += ws_frames.build(opcode, payload, False, bool(first & 0x80))

    def send(self, number):
        stream = self.streams[number]
        while stream.waiting:
            room = min(
                self.h2.local_flow_control_window(number),
                self.h2.max_outbound_frame_size,
                len(stream.waiting),
            )
            if room <= 0:
                return
            self.h2.send_data(number, bytes(stream.waiting[:room]))
            del stream.waiting[:room]
        if stream.ends:
            self.h2.end_stream(number)
            del self.streams[number]


async def main():
    server = await asyncio.get_running_loop().create_server(Connection, None, int(sys.argv[1]))
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
