"""The job API with `requests` alone: submit and poll, submit and wait, stream, and try again when it makes sense.

headrace serve smollm2
python examples/runpod_requests.py
python examples/runpod_requests.py --base-url http://localhost:8000/v2/default --api-key KEY --prompt "Once upon a time"
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import requests

_RATE_LIMIT_PAUSE = 5.0
_TERMINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


class GaveUp(Exception):
    """No attempt has succeeded."""


def send_request(url: str, headers: dict[str, str], payload: dict[str, Any], max_retries: int = 3) -> dict[str, Any]:
    """Post until it succeeds: after 5 s where there were too many requests, after 1, 2, 4 s where the server or the
    network failed. What the caller has done wrong is raised at once. Raises `GaveUp`.

    A job that was accepted in an attempt whose answer got lost is submitted once more, unless the request has a name:
    that is what the Idempotency-Key is for.
    """
    for attempt in range(max_retries):
        try:
            response = requests.post(url, headers=headers, json=payload, timeout=300)
            response.raise_for_status()
            return response.json()
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code
            if status == 429:
                time.sleep(_RATE_LIMIT_PAUSE)
            elif status >= 500:
                time.sleep(2**attempt)
            else:
                raise
        except requests.exceptions.RequestException:
            time.sleep(2**attempt)
    raise GaveUp(f"No answer from {url} after {max_retries} attempts.")


def wait_for(job_url: str, headers: dict[str, str]) -> dict[str, Any]:
    """The job once it has ended."""
    while True:
        response = requests.get(job_url, headers=headers, timeout=30)
        response.raise_for_status()
        job = response.json()
        if job["status"] in _TERMINAL:
            return job
        time.sleep(0.2)


def chunks_of(stream_url: str, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The job's chunks while it runs: one connection, a line a chunk."""
    with requests.get(stream_url, headers=headers, stream=True, timeout=300) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line:
                for part in json.loads(line)["stream"]:
                    yield part["output"]


def text_of(chunk: dict[str, Any]) -> str:
    return "".join(chunk["choices"][0]["tokens"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://localhost:8000/v2/default")
    parser.add_argument("--api-key", default="local")
    parser.add_argument("--prompt", default="Write a short story about a robot.")
    parser.add_argument("--max-tokens", type=int, default=64)
    arguments = parser.parse_args()
    base = arguments.base_url
    headers = {"Authorization": f"Bearer {arguments.api_key}"}
    sampling = {"temperature": 0.7, "max_tokens": arguments.max_tokens}
    messages = [{"role": "user", "content": arguments.prompt}]
    chat = {"input": {"messages": messages, "sampling_params": sampling}}

    job_id = send_request(f"{base}/run", headers, chat)["id"]
    print(f"Job: {job_id}")
    job = wait_for(f"{base}/status/{job_id}", headers)
    print(f"{job['status']} after {job['delayTime']} + {job['executionTime']} ms: {text_of(job['output'][0])!r}")

    job = send_request(f"{base}/runsync", headers, chat)
    print(f"Waited for: {text_of(job['output'][0])!r}")

    streamed = {"input": {"prompt": arguments.prompt, "sampling_params": sampling, "stream": True}}
    job_id = send_request(f"{base}/run", {**headers, "Idempotency-Key": f"story-{time.time_ns()}"}, streamed)["id"]
    print("Streamed: ", end="")
    used = {}
    for chunk in chunks_of(f"{base}/stream/{job_id}", headers):
        print(text_of(chunk), end="", flush=True)
        used = chunk["usage"]
    print(f"\n[{used['input']} tokens in, {used['output']} tokens out]")


if __name__ == "__main__":
    main()
