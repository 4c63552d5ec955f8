"""What the tests of the job API have in common: calls over plain HTTP, and a receiver of webhooks."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

TERMINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def native(prompt: str = "The capital of France is", *, stream: bool = False, **sampling: Any) -> dict[str, Any]:
    """A job's input: greedy, eight tokens, unless `sampling` says otherwise."""
    values = {"temperature": 0, "max_tokens": 8, "ignore_eos": True, **sampling}
    return {"prompt": prompt, "stream": stream, "sampling_params": values}


def endless() -> dict[str, Any]:
    """An input that keeps the engine busy for longer than any test takes."""
    return native("Once upon a time", stream=True, max_tokens=1900, n=4, temperature=1)


def text_of(output: list[dict[str, Any]], choice: int = 0) -> str:
    return "".join(token for chunk in output for token in chunk["choices"][choice]["tokens"])


class JobCalls:
    """The routes of one endpoint. Replies that must be there are checked: 200, JSON."""

    def __init__(self, url: str, *, prefix: str = "/v2/default", key: str | None = None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url + prefix, timeout=60, headers=headers)

    def post(self, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        return _checked(self.http.post(path, json=body, **options) if body is not None else self.http.post(path))

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return _checked(self.http.get(path, params=query))

    def run(self, given: dict[str, Any], **envelope: Any) -> str:
        """The id of a new job."""
        return self.post("/run", {"input": given, **envelope})["id"]

    def status(self, job_id: str) -> dict[str, Any]:
        return self.get(f"/status/{job_id}")

    def ended(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """The job once it has ended."""
        job = self.get(f"/status-sync/{job_id}", wait=round(seconds * 1000))
        assert job["status"] in TERMINAL, job
        return job

    def begun(self, job_id: str) -> None:
        """Wait for the first chunk of a job, and leave the cursor where it is."""
        page = self.get(f"/stream/{job_id}", mode="poll", wait=60_000, offset=0)
        assert page["stream"], page

    def poll(self, job_id: str, **query: Any) -> dict[str, Any]:
        return self.get(f"/stream/{job_id}", mode="poll", **query)

    def cancel(self, job_id: str) -> dict[str, Any]:
        return self.post(f"/cancel/{job_id}")

    def close(self) -> None:
        self.http.close()


def _checked(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json"
    return response.json()


@dataclass
class Receiver:
    """Webhook calls as they come; each is answered with the next of `answers`, the last one again and again."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    calls: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)

    def next(self) -> dict[str, Any]:
        return self.calls.get(timeout=30)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
            receiver.calls.put({"type": self.headers["Content-Type"], **json.loads(body)})
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()
