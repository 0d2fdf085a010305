"""gRPC servers that say who they are, and a client that asks: `grpc_who.py serve PORT`,
`grpc_who.py MODE AUTHORITY` with the modes `routes`, `faults`, `many` and `pushback`. The server of port 9002 says
that it does not serve, and turns away callers that name a pushback."""

import sys
import threading
import time
from concurrent import futures

import grpc

ROLE, WHERE = sys.argv[1], sys.argv[2]


# HealthCheckResponse of grpc.health.v1: SERVING is 1, NOT_SERVING is 2.
def health(request, context):
    return b"\x08\x02" if WHERE == "9002" else b"\x08\x01"


def pushed_back(request, context):
    if WHERE == "9002":
        context.set_trailing_metadata((("grpc-retry-pushback-ms", request.decode()),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "later")
    return WHERE.encode()


def serve():
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: WHERE.encode())
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    for service in ("test.Test", "test.Other", "test.None"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Echo": handler}),))
    for service, name, behaviour in (("grpc.health.v1.Health", "Check", health), ("test.Late", "Echo", pushed_back)):
        method = {name: grpc.unary_unary_rpc_method_handler(behaviour)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, method),))
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
    "many": tuple((f"Echo {number}", "test.Test", ()) for number in range(10)),
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


def push_back():
    # gRPC's own further tries would hide those of the mesh.
    channel = grpc.insecure_channel(WHERE, options=[("grpc.enable_retries", 0)])
    for milliseconds in ("500", "500", "-1", "-1") * 3:
        began = time.monotonic()
        try:
            said = channel.unary_unary("/test.Late/Echo")(milliseconds.encode(), timeout=20, wait_for_ready=True).decode()
        except grpc.RpcError as error:
            said = error.code().name
        print(milliseconds, said, f"{time.monotonic() - began:.3f}")


{"serve": serve, "pushback": push_back}.get(ROLE, call)()
