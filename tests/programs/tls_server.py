"""A TLS server that answers every request with its own name and the server name it was asked for:
`tls_server.py PORT CERTIFICATE KEY NAME`."""

import http.server
import ssl
import sys

PORT, CERTIFICATE, KEY, NAME = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{NAME} for {getattr(self.connection, 'asked', None)}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def asked(connection, name, _context):
    connection.asked = name


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
context.sni_callback = asked
server = http.server.ThreadingHTTPServer(("", PORT), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("ready", flush=True)
server.serve_forever()
