"""Token ids in, token ids out: the chat template and the tokenizer are the client's, the server sees no text.

headrace serve --tokens-only /models/Qwen3-0.6B
python examples/token_ids_client.py --tokenizer /models/Qwen3-0.6B "How many countries are in the EU?"

The tokenizer must be the model's own: a folder, a Hub id, or the .gguf file that is served. By default it is taken from
where the server says that its model is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
from transformers import AutoTokenizer, PreTrainedTokenizerBase


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    path = Path(name)
    if path.suffix == ".gguf":
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return AutoTokenizer.from_pretrained(name)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": question},
    ]
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False, tokenize=True, return_dict=False
    )


def generate(client: httpx.Client, payload: dict[str, object]) -> list[int]:
    response = client.post("/inference/v1/generate", json=payload)
    response.raise_for_status()
    return response.json()["choices"][0]["token_ids"]


def stream(client: httpx.Client, payload: dict[str, object]) -> Iterator[list[int]]:
    """The ids as they come: server-sent events, the last of which says [DONE]."""
    with client.stream("POST", "/inference/v1/generate", json={**payload, "stream": True}) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise SystemExit(f"The server failed: {event['error']['message']}")
            yield event["choices"][0]["token_ids"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="How many countries are in the EU?")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--api-key", default="EMPTY")
    parser.add_argument("--tokenizer", help="folder, Hub id or .gguf file")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--stream", action="store_true")
    arguments = parser.parse_args()
    headers = {"Authorization": f"Bearer {arguments.api_key}"}
    with httpx.Client(base_url=arguments.url, headers=headers, timeout=600) as client:
        try:
            model = client.get("/v1/models").raise_for_status().json()["data"][0]
            tokenizer = load_tokenizer(arguments.tokenizer or model["root"])
            payload: dict[str, object] = {
                "model": model["id"],
                "token_ids": prompt_ids(tokenizer, arguments.question),
                "sampling_params": {
                    "max_tokens": arguments.max_tokens,
                    "temperature": arguments.temperature,
                    "detokenize": False,
                },
            }
            ids: list[int] = []
            for piece in stream(client, payload) if arguments.stream else [generate(client, payload)]:
                ids += piece
                print("token ids:", piece)
        except httpx.ConnectError:
            raise SystemExit(f"Nobody answers at {arguments.url}. Start a server with: headrace serve") from None
        except httpx.HTTPStatusError as refusal:
            refusal.response.read()
            raise SystemExit(f"The server refused: {refusal.response.text}") from None
    print("text:", tokenizer.decode(ids, skip_special_tokens=True))


if __name__ == "__main__":
    main()
