"""What a model makes of each token of a text, over plain HTTP.

headrace serve minilm
python examples/pooling_client.py "A mill by the river." --task token_embed
"""

from __future__ import annotations

import argparse
from typing import Any

import requests


def pool(url: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        response = requests.post(f"{url}/pooling", json=body, timeout=60)
    except requests.ConnectionError:
        raise SystemExit(f"Nobody answers at {url}. Start a server with: headrace serve minilm") from None
    if response.status_code != 200:
        raise SystemExit(f"The server refused ({response.status_code}): {response.json()['error']['message']}")
    return response.json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="A mill by the river.")
    parser.add_argument("--task", help="embed, classify, token_embed or token_classify; default: the model's own")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--url", default="http://localhost:8000")
    arguments = parser.parse_args()
    body: dict[str, Any] = {"model": arguments.model, "input": arguments.text}
    if arguments.task:
        body["task"] = arguments.task
    answer = pool(arguments.url, body)
    for item in answer["data"]:
        rows = item["data"] if isinstance(item["data"][0], list) else [item["data"]]
        for row in rows:
            print(f"{len(row)} numbers: {', '.join(f'{value:.3f}' for value in row[:4])}, …")
    print(f"{answer['usage']['prompt_tokens']} tokens")


if __name__ == "__main__":
    main()
