"""Webhooks against a real HTTP server: what is sent, how often, over restarts, and where it must not go."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from job_tools import SCOPE, Gate, count_up, serving, until

from headrace.core.errors import BadRequest
from headrace.jobs import JobQueue, JobStatus, Submission
from headrace.jobs.addresses import ForbiddenAddress, check_webhook, resolve


class Receiver:
    """Answers with the `answers` in turn, then with 200. `calls` are the bodies it got."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[int] = []
        self.calls: list[dict] = []
        self.headers: list[dict[str, str]] = []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.headers.append(dict(self.headers))
            status = found.answers.pop(0) if found.answers else 200
            self.send_response(status)
            if status == 302:
                self.send_header("Location", found.url)
            self.send_header("Content-Length", "0")
            self.end_headers()
            found.calls.append(json.loads(body))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"http://localhost:{server.server_port}/hook?x=1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


ALLOWED = {"job_webhook_private": True, "job_webhook_retry_delay": 0.01}


async def submit(queue: JobQueue, receiver: Receiver, n: int = 0):
    return await queue.submit(SCOPE, Submission(input={"n": n}, webhook=receiver.url))


def test_a_webhook_is_called_once_for_every_way_to_end(config_of, receiver: Receiver):
    gate = Gate()

    async def execute(job, job_input, emit):
        if job_input["n"] == 1:
            raise BadRequest("no")
        await (count_up(job, job_input, emit) if job_input["n"] else gate(job, job_input, emit))

    async def main():
        async with serving(config_of(**ALLOWED), execute) as queue:
            done, failed, cancelled = [await submit(queue, receiver, n) for n in (2, 1, 0)]
            await gate.started.wait()
            await queue.cancel(SCOPE, cancelled.id)
            await until(lambda: len(receiver.calls) == 3)
        by_id = {call["id"]: call for call in receiver.calls}
        assert by_id == {
            done.id: {"id": done.id, "status": "COMPLETED", "output": [0, 1], "input": {"n": 2}},
            failed.id: {"id": failed.id, "status": "FAILED", "output": None, "input": {"n": 1}},
            cancelled.id: {"id": cancelled.id, "status": "CANCELLED", "output": None, "input": {"n": 0}},
        }
        assert receiver.headers[0]["Content-Type"] == "application/json"
        assert receiver.headers[0]["Host"] == receiver.url.split("/")[2]
        async with serving(config_of(**ALLOWED)):
            await asyncio.sleep(0.7)  # longer than it takes to look for calls to be made
        assert len(receiver.calls) == 3

    asyncio.run(main())


@pytest.mark.parametrize(("answers", "calls"), [([500, 302], 3), ([500, 500, 500, 500], 3), ([204], 1)])
def test_a_call_is_tried_three_times_at_most_and_never_changes_the_job(sqlite_config, receiver, answers, calls):
    receiver.answers = answers

    async def main():
        async with serving(sqlite_config(**ALLOWED), count_up) as queue:
            job = await submit(queue, receiver)
            await until(lambda: len(receiver.calls) == calls)
            await asyncio.sleep(0.7)
            assert len(receiver.calls) == calls
            assert (await queue.get(SCOPE, job.id)).status is JobStatus.COMPLETED

    asyncio.run(main())


def test_calls_that_were_not_made_are_made_after_a_restart(
    config_of, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)

    async def main():
        receiver.answers = [503] * 1
        async with serving(config_of(job_webhook_private=True, job_webhook_retry_delay=1), count_up) as queue:
            job = await submit(queue, receiver, 2)
            # Noted as to be made again; one cut off before that is, but only when it has been out for long.
            await until(lambda: "the webhook failed" in caplog.text)
        async with serving(config_of(**ALLOWED)):
            await until(lambda: len(receiver.calls) == 2)
        assert receiver.calls[1] == receiver.calls[0]
        assert receiver.calls[0]["id"] == job.id

    asyncio.run(main())


def test_a_name_that_leads_to_a_private_address_is_not_called(sqlite_config, receiver: Receiver, monkeypatch):
    """`localhost` itself is refused at submission; here it hides behind another name."""
    url = receiver.url.replace("localhost", "hidden.example")
    resolved = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(loop, host, port, **options):
        return await resolved(loop, "127.0.0.1" if host == "hidden.example" else host, port, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)

    async def main():
        async with serving(sqlite_config(job_webhook_retry_delay=0), count_up) as queue:
            await queue.submit(SCOPE, Submission(input={"n": 0}, webhook=url))
            await asyncio.sleep(1.0)
        with pytest.raises(ForbiddenAddress):
            await resolve(url, allow_private=False)

    asyncio.run(main())
    assert receiver.calls == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8000/",
        "http://[::1]/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:192.168.0.1]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
    ],
)
def test_addresses_that_only_the_server_can_reach_are_refused(url: str):
    with pytest.raises(BadRequest, match="--job-webhook-private"):
        check_webhook(url, allow_private=False)
    check_webhook(url, allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "/hook",
        "file:///etc/passwd",
        "http://",
        "http://u:p@h.test/",
        "http://h:x/",
        "http://a b/",
        "http://h/\0",
    ],
)
def test_what_is_no_url_is_refused_by_name(url: str):
    with pytest.raises(BadRequest, match="webhook must be an http"):
        check_webhook(url, allow_private=True)


def test_public_urls_are_accepted():
    for url in ("https://example.test/hook", "http://93.184.216.34:8080/", "https://[2606:2800:220:1::1]/"):
        check_webhook(url, allow_private=False)
