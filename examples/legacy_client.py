"""The demo API: one prompt, one or several candidates, whole or shown as they grow.

python -m headrace.api.legacy --model smollm2
python examples/legacy_client.py --prompt "San Francisco is a"
python examples/legacy_client.py --prompt "The future of AI is" --stream
python examples/legacy_client.py --prompt "Hello, my name is" --n 3 --stream

Several candidates at temperature 0 are found by beam search; while it runs, the best of the moment are shown.
`headrace serve` has the same route.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import requests

_LINE_UP = "\033[1A"
_CLEAR_LINE = "\033[2K"


def post(url: str, prompt: str, n: int, stream: bool) -> requests.Response:
    body = {"prompt": prompt, "n": n, "temperature": 0.0, "max_tokens": 16, "stream": stream}
    response = requests.post(url, headers={"User-Agent": "Test Client"}, json=body, stream=stream, timeout=600)
    response.raise_for_status()
    return response


def candidates(response: requests.Response) -> list[str]:
    body = json.loads(response.content)
    if "text" not in body:
        raise SystemExit(f"Error: unexpected answer {body}")
    return body["text"]


def growing_candidates(response: requests.Response) -> Iterator[list[str]]:
    """All candidates of each line; every line repeats what the ones before it have said."""
    for line in response.iter_lines(chunk_size=8192, delimiter=b"\n"):
        if line:
            body = json.loads(line)
            if "text" not in body:
                raise SystemExit(f"Error: the server failed: {body}")
            yield body["text"]


def show(texts: list[str], *, over: int = 0) -> int:
    """Print one line a candidate in place of the last `over` lines, and say how many these are."""
    sys.stdout.write((_LINE_UP + _CLEAR_LINE) * over)
    for index, text in enumerate(texts):
        print(f"Beam candidate {index}: {text!r}", flush=True)
    return len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--n", type=int, default=1)
    parser.add_argument("--prompt", default="San Francisco is a")
    parser.add_argument("--stream", action="store_true")
    arguments = parser.parse_args()
    url = f"http://{arguments.host}:{arguments.port}/generate"
    print(f"Prompt: {arguments.prompt!r}\n", flush=True)
    try:
        response = post(url, arguments.prompt, arguments.n, arguments.stream)
        if arguments.stream:
            shown = 0
            for texts in growing_candidates(response):
                shown = show(texts, over=shown)
        else:
            show(candidates(response))
    except requests.exceptions.ConnectionError:
        raise SystemExit(
            f"Error: could not connect to {url}. Start a server with:\n  python -m headrace.api.legacy --model smollm2"
        ) from None
    except requests.exceptions.HTTPError as error:
        raise SystemExit(f"HTTP error: {error}\n{error.response.text}") from None
    except json.JSONDecodeError:
        raise SystemExit("Error: the answer is no JSON") from None


if __name__ == "__main__":
    main()
