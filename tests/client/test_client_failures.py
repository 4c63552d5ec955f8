"""What each client does with servers that fail, in every way in which they do."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from both_clients import Driver
from scripted_server import DONE, RESET, SILENCE, chunked, completion_event, event, reply, scripted

from headrace.client import (
    AuthenticationError,
    BadRequestError,
    Client,
    ConflictError,
    ConnectFailed,
    JobFailed,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    StatusError,
    TimedOut,
    TransportError,
)
from headrace.client.retry import Attempts

GOOD = reply(200, {"choices": [{"index": 0, "text": " Paris"}]})
QUEUED = reply(200, {"id": "j1", "status": "IN_QUEUE"})
FAILURE = {"error": {"message": "Broken.", "type": "InternalServerError", "param": None, "code": 500}}


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(b"", id="closed at once"),
        pytest.param(RESET, id="reset at once"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="closed in the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le" + RESET, id="reset in the head"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 50\r\n\r\n", id="closed in the body"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 50\r\n\r\n" + RESET,
            id="reset in the body",
        ),
        pytest.param(b"\x00\x01nonsense\r\n\r\n", id="not HTTP"),
        pytest.param(reply(429, {"error": "Full."}, Retry_After="0"), id="429"),
        pytest.param(reply(500, FAILURE), id="500"),
        pytest.param(reply(502, b"<html>Bad gateway</html>", Content_Type="text/html"), id="502"),
        pytest.param(reply(503, FAILURE, Retry_After="0"), id="503"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_passing_failures_are_not_seen(drive: Driver, failure: bytes, stream: bool):
    good = chunked(completion_event(" Paris"), DONE) if stream else GOOD
    with scripted(failure, failure, good) as server:
        result = drive(server.url, "complete", "France", stream=stream)
        text = result[0].text if stream else result.text
        assert text == " Paris"
        assert len({request.body for request in server.seen}) == 1
        assert len(server.seen) == 3


def test_no_more_than_the_policy_allows(drive: Driver):
    with scripted(reply(500, FAILURE, X_Request_Id="r-9")) as server:
        with pytest.raises(ServerError) as caught:
            drive(server.url, "complete", "France")
        assert len(server.seen) == 4
    error = caught.value
    assert (error.status, error.type, error.param, error.request_id) == (500, "InternalServerError", None, "r-9")
    assert error.message == "Broken."


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, StatusError),
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, BadRequestError),
        (501, ServerError),
    ],
)
def test_refusals_are_final(drive: Driver, status: int, kind: type[StatusError]):
    refusal = {"error": {"message": "n must be at least 1.", "type": "BadRequestError", "param": "n", "code": status}}
    with scripted(reply(status, refusal)) as server:
        with pytest.raises(kind) as caught:
            drive(server.url, "complete", "France", n=0)
        assert len(server.seen) == 1
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.param) == (status, "n")
    assert str(caught.value) == "n must be at least 1."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "No such job."}, "No such job."),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["body"], "msg": "required"}]}, '[{"loc":["body"],"msg":"required"}]'),
        ({"object": "error", "message": "Too long.", "type": "BadRequestError"}, "Too long."),
        (b"<html>no</html>", "<html>no</html>"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "The server answered 404 Not Found."),
        ([], "[]"),
        ({"error": {"message": None}}, "The server answered 404 Not Found."),
    ],
)
def test_errors_of_any_shape_have_a_message(body: Any, message: str):
    with scripted(reply(404, body)) as server, Client(server.url) as client:
        with pytest.raises(NotFoundError) as caught:
            client.models()
        assert caught.value.message == message


def test_retry_after_is_waited_for(drive: Driver):
    with scripted(reply(429, {"error": "Full."}, Retry_After="1"), GOOD) as server:
        started = time.monotonic()
        assert drive(server.url, "complete", "France").text == " Paris"
        assert time.monotonic() - started >= 1.0


def test_a_date_to_come_back_is_waited_for(drive: Driver):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with scripted(reply(503, FAILURE, Retry_After=soon), GOOD) as server:
        started = time.monotonic()
        assert drive(server.url, "complete", "France").text == " Paris"
        assert 0.9 <= time.monotonic() - started < 10  # a date has no fractions of a second


@pytest.mark.parametrize("asked", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_nobody_waits_for_an_hour(drive: Driver, asked: str):
    with scripted(reply(429, {"error": "Full."}, Retry_After=asked)) as server:
        with pytest.raises(RateLimitError) as caught:
            drive(server.url, "complete", "France")
        assert len(server.seen) == 1
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 3600


def test_a_date_of_the_past_and_nonsense_mean_no_wait(drive: Driver):
    answers = [reply(429, {}, Retry_After=text) for text in ("Wed, 21 Oct 2015 07:28:00 GMT", "soon")]
    with scripted(*answers, GOOD) as server:
        assert drive(server.url, "complete", "France").text == " Paris"


def test_nobody_there(drive: Driver):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(ConnectFailed, match="No connection could be made"):
            drive(url, "models")


def test_a_server_that_comes_back_is_reached(drive: Driver):
    """Nobody listens at first; the port opens while the client waits."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def answer() -> None:
            listener.listen()
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(GOOD)

        opening = threading.Timer(0.2, answer)
        opening.start()
        patient = RetryPolicy(max_retries=50, first_delay=0.02, longest_delay=0.1)
        assert drive(url, "complete", "France", options={"retry": patient}).text == " Paris"
        opening.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + SILENCE, id="after the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{" + SILENCE, id="in the body"),
    ],
)
def test_an_answer_that_stalls_is_not_asked_for_again(drive: Driver, answer: bytes):
    with scripted(answer) as server:
        with pytest.raises(TimedOut):
            drive(server.url, "complete", "France", options={"timeout": 0.2})
        assert len(server.seen) == 1
        assert server.hung_up.wait(10)


def test_a_stream_that_stalls_is_not_asked_for_again(drive: Driver):
    with scripted(chunked(completion_event("a"), complete=False) + SILENCE) as server:
        with pytest.raises(TimedOut):
            drive(server.url, "complete", "France", stream=True, options={"timeout": 0.2})
        assert len(server.seen) == 1
        assert server.hung_up.wait(10)


@pytest.mark.parametrize("stream", [False, True])
def test_a_silent_server_is_asked_once(drive: Driver, stream: bool):
    with scripted(SILENCE) as server:
        with pytest.raises(TimedOut):
            drive(server.url, "complete", "France", stream=stream, options={"timeout": 0.2})
        assert len(server.seen) == 1
        assert server.hung_up.wait(10)


@pytest.mark.parametrize("body", [b"garbage", b"{}", b'{"choices": [{"index": 0}]}', b"\xff", b"", b"[1]"])
def test_garbage_is_a_protocol_error(drive: Driver, body: bytes):
    with scripted(reply(200, body)) as server:
        with pytest.raises(ProtocolError):
            drive(server.url, "complete", "France")
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (chunked(completion_event("a")), ProtocolError, "ended before it was complete"),
        (chunked(completion_event("a"), complete=False), TransportError, "broke"),
        (chunked(completion_event("a") + b"data: {broken\n\n", DONE), ProtocolError, "malformed chunk"),
        (chunked(completion_event("a"), b'data: {"choices": 5}\n\n', DONE), ProtocolError, "malformed chunk"),
        (chunked(completion_event("a"), event(FAILURE), DONE), ServerError, "Broken."),
    ],
)
def test_streams_that_fail_are_not_repeated(answer: bytes, kind: type[Exception], message: str):
    with scripted(answer) as server, Client(server.url) as client:
        stream = client.complete("France", stream=True)
        assert next(stream).text == "a"
        with pytest.raises(kind, match=message) as caught:
            next(stream)
        if isinstance(caught.value, StatusError):
            assert caught.value.request_id == "r-1"
        with pytest.raises(StopIteration):
            next(stream)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        chunked(completion_event("a")),
        chunked(completion_event("a"), complete=False),
        chunked(completion_event("a"), complete=False) + RESET,
        chunked(completion_event("a"), b"data: {broken\n\n", DONE),
        chunked(completion_event("a"), event(FAILURE), DONE),
    ],
)
def test_streams_that_fail_do_so_in_both_clients(drive: Driver, answer: bytes):
    with scripted(answer) as server:
        with pytest.raises((ProtocolError, TransportError, ServerError)):
            drive(server.url, "complete", "France", stream=True)
        assert len(server.seen) == 1


def test_a_stream_that_breaks_before_its_first_byte_is_asked_for_again(drive: Driver):
    with scripted(chunked(complete=False), chunked(completion_event("a"), DONE)) as server:
        (chunk,) = drive(server.url, "complete", "France", stream=True)
        assert chunk.text == "a"
        assert len(server.seen) == 2


def test_what_is_no_stream_is_not_taken_for_one(drive: Driver):
    with scripted(GOOD) as server, pytest.raises(ProtocolError, match="application/json, not with text/event-stream"):
        drive(server.url, "complete", "France", stream=True)


@pytest.mark.parametrize("method", ["jobs.run", "jobs.runsync"])
def test_a_job_that_is_submitted_again_is_the_same_job(drive: Driver, method: str):
    with scripted(b"", reply(500, {"error": "Broken."}), QUEUED) as server:
        assert drive(server.url, method, {"prompt": "Hi"}).id == "j1"
        keys = [request.headers["idempotency-key"] for request in server.seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    with scripted(QUEUED) as server:
        drive(server.url, method, {"prompt": "Hi"})
        assert server.seen[0].headers["idempotency-key"] != keys[0]
        drive(server.url, method, {"prompt": "Hi"}, idempotency_key="mine")
        assert server.seen[1].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize(("method", "arguments"), [("jobs.retry", ("j1",)), ("jobs.purge", ())])
def test_what_would_do_more_the_second_time_is_sent_once(drive: Driver, method: str, arguments: tuple[str, ...]):
    for failure, kind in ((b"", TransportError), (reply(500, {"error": "Broken."}), ServerError)):
        with scripted(failure) as server:
            with pytest.raises(kind):
                drive(server.url, method, *arguments)
            assert len(server.seen) == 1
    good = reply(200, {"id": "j1", "status": "IN_QUEUE", "removed": 2})
    with scripted(reply(429, {"error": "Slowly."}), good) as server:
        drive(server.url, method, *arguments)
        assert len(server.seen) == 2


def test_a_job_stream_outlives_broken_connections(drive: Driver):
    def page(status: str, *texts: str) -> bytes:
        return reply(200, {"status": status, "stream": [{"output": text} for text in texts]})

    answers = [page("IN_PROGRESS", "a", "b"), b"", page("IN_PROGRESS"), reply(503, {"error": "No."})]
    with scripted(*answers, page("COMPLETED", "c")) as server:
        assert drive(server.url, "jobs.stream", "j 1") == ["a", "b", "c"]
        offsets = [request.line.partition("offset=")[2].partition("&")[0] for request in server.seen]
        assert offsets == ["0", "2", "2", "2", "2"]
        assert server.seen[0].line.startswith("GET /v2/default/stream/j%201?mode=poll")


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED", "TIMED_OUT"])
def test_a_job_that_fails_says_so_behind_its_chunks(status: str):
    page = {"status": status, "stream": [{"output": 1}], "error": "n must be 1."}
    with scripted(reply(200, page)) as server, Client(server.url) as client, client.jobs.stream("j1") as stream:
        assert next(stream) == 1
        with pytest.raises(JobFailed, match="n must be 1") as caught:
            next(stream)
        assert (caught.value.job_id, caught.value.status) == ("j1", status)
        assert stream.offset == 1


def test_a_client_that_leaves_hangs_up():
    with scripted(chunked(completion_event("a"), complete=False) + SILENCE) as server, Client(server.url) as client:
        with client.complete("France", stream=True) as stream:
            assert next(stream).text == "a"
        assert server.hung_up.wait(10)
        assert list(stream) == []


def test_delays_grow_and_are_never_equal_for_all():
    policy = RetryPolicy(max_retries=5, first_delay=1.0, longest_delay=4.0)

    def delays() -> list[float]:
        attempts = Attempts(policy, repeatable=True)
        return [attempts.delay_after(TransportError("broken")) for _ in range(5)]

    first, second = delays(), delays()
    assert first != second
    for delay, whole in zip(first, (1, 2, 4, 4, 4), strict=True):
        assert whole / 2 <= delay <= whole


def test_what_json_cannot_say_is_not_sent():
    with scripted(GOOD) as server, Client(server.url) as client:
        with pytest.raises(ValueError, match="not JSON compliant"):
            client.complete("France", temperature=float("nan"))
        client.complete(range(3), stop=None)  # type: ignore[arg-type]
        assert json.loads(server.seen[0].body) == {"prompt": [0, 1, 2]}
