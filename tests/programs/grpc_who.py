"""gRPC servers that say who they are, and a client that asks: `grpc_who.py serve PORT`,
`grpc_who.py routes AUTHORITY`, `grpc_who.py faults AUTHORITY`."""

import sys
import threading
from concurrent import futures

import grpc

ROLE, WHERE = sys.argv[1], sys.argv[2]


def serve():
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: WHERE.encode())
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    for service in ("test.Test", "test.Other", "test.None"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Echo": handler}),))
    assert server.add_insecure_port(f"[::]:{WHERE}")
    server.start()
    print("ready", flush=True)
    threading.Event().wait()


CALLS = {
    "routes": (
        ("Echo", "test.Test", ()),
        ("Echo canary", "test.Test", (("x-canary", "1"),)),
        ("Other", "test.Other", ()),
        ("None", "test.None", ()),
    ),
    "faults": (("Faulted", "test.Test", (("x-fault", "1"),)), ("Echo", "test.Test", ())),
}


def call():
    channel = grpc.insecure_channel(WHERE)
    for title, service, metadata in CALLS[ROLE]:
        try:
            said = channel.unary_unary(f"/{service}/Echo")(b"", metadata=metadata, timeout=20, wait_for_ready=True)
            print(f"{title}={said.decode()}")
        except grpc.RpcError as error:
            print(f"{title}={error.code().name}")


serve() if ROLE == "serve" else call()
