"""A gRPC server without generated code: `grpc_server.py PORT`. Messages are bytes."""

import sys
import threading
import time
from concurrent import futures

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
CANCELLED = []


def echo(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-first", metadata.get("x-say", "-")),))
    context.set_trailing_metadata((("x-last-bin", b"\x00\xff"), ("x-left", str(context.time_remaining() is not None))))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-last", "told"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())


def sleep(request, context):
    context.add_callback(lambda: CANCELLED.append(request))
    time.sleep(float(request))
    return b""


def cancelled(request, context):
    """How many calls ended before their time was over."""
    return str(len(CANCELLED)).encode()


def talk(requests, context):
    for request in requests:
        yield request


def pour(request, context):
    for _ in range(int(request)):
        yield b"x" * 65536


def drain(requests, context):
    return str(sum(len(request) for request in requests)).encode()


HANDLERS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "Cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
    "Pour": grpc.unary_stream_rpc_method_handler(pour),
    "Drain": grpc.stream_unary_rpc_method_handler(drain),
}

server = grpc.server(futures.ThreadPoolExecutor(64), options=OPTIONS)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", HANDLERS),))
assert server.add_insecure_port(f"[::]:{sys.argv[1]}")
server.start()
print("ready", flush=True)
threading.Event().wait()
