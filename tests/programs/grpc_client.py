"""Checks of gRPC, each by name: `grpc_client.py AUTHORITY CHECK…`. Prints `ok CHECK` for each."""

import itertools
import sys
import time

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
CHANNEL = grpc.insecure_channel(sys.argv[1], OPTIONS)


def method(kind, name):
    return getattr(CHANNEL, kind)(f"/test.Test/{name}")


def failure(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except grpc.RpcError as error:
        return error
    raise AssertionError("no failure")


def unary():
    answer, call = method("unary_unary", "Echo").with_call(b"hello", metadata=(("x-say", "words"),), timeout=20)
    assert answer == b"hello"
    assert dict(call.initial_metadata())["x-first"] == "words"
    last = dict(call.trailing_metadata())
    assert last["x-last-bin"] == b"\x00\xff" and last["x-left"] == "True", last


def large():
    data = bytes(16 << 20)
    assert method("unary_unary", "Echo")(data, timeout=60) == data


def failures():
    for text in ("plain", "ünïcode % \n and more", ""):
        error = failure(method("unary_unary", "Fail"), text.encode(), timeout=20)
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == text, error
        assert dict(error.trailing_metadata())["x-last"] == "told", error
    error = failure(method("unary_unary", "Nothing"), b"", timeout=20)
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def deadlines():
    begun = time.monotonic()
    error = failure(method("unary_unary", "Sleep"), b"10", timeout=0.3)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - begun < 5


def cancels():
    """What a client takes back is taken back at the server."""
    count = method("unary_unary", "Cancelled")
    before = int(count(b"", timeout=20))
    calls = [method("unary_unary", "Sleep").future(b"3", timeout=60) for _ in range(5)]
    time.sleep(0.3)
    for call in calls:
        assert call.cancel()
    end = time.monotonic() + 2
    while int(count(b"", timeout=20)) < before + 5:
        assert time.monotonic() < end, "the server was not told"
        time.sleep(0.02)


def talk():
    """Each message is answered before the next is sent."""
    import queue

    questions = queue.Queue()
    answers = method("stream_stream", "Talk")(iter(questions.get, None), timeout=60)
    for index in range(500):
        message = str(index).encode() * (index % 7)
        questions.put(message)
        assert next(answers) == message
    questions.put(None)
    assert list(answers) == [] and answers.code() == grpc.StatusCode.OK


def streams():
    got = sum(len(piece) for piece in method("unary_stream", "Pour")(b"500", timeout=60))
    assert got == 500 * 65536, got
    pieces = itertools.repeat(b"y" * 65536, 500)
    assert method("stream_unary", "Drain")(pieces, timeout=60) == str(500 * 65536).encode()
    # A stream that is left early ends at once.
    call = method("unary_stream", "Pour")(b"100000", timeout=60)
    next(call)
    call.cancel()
    assert call.code() == grpc.StatusCode.CANCELLED


def beside():
    calls = [method("unary_unary", "Echo").future(str(index).encode(), timeout=60) for index in range(500)]
    for index, call in enumerate(calls):
        assert call.result() == str(index).encode()


for name in sys.argv[2:]:
    globals()[name]()
    print("ok", name, flush=True)
