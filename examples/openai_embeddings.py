"""Find the texts that are closest in meaning to a question, with OpenAI's client.

headrace serve minilm
python examples/openai_embeddings.py "What brings water to a mill?"
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from openai import APIConnectionError, APIStatusError, OpenAI

TEXTS = [
    "A headrace is the channel that carries water to a mill wheel.",
    "The capital of France is Paris.",
    "Bread is made of flour, water, salt and yeast.",
]


def embed(client: OpenAI, model: str, texts: Sequence[str]) -> list[list[float]]:
    """A vector for each text. OpenAI's client has them sent as base64 and decodes them by itself."""
    answer = client.embeddings.create(model=model, input=list(texts))
    return [item.embedding for item in answer.data]


def likeness(first: Sequence[float], second: Sequence[float]) -> float:
    """The cosine of two vectors of length 1."""
    return sum(left * right for left, right in zip(first, second, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="What brings water to a mill?")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--base-url", default="http://localhost:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    arguments = parser.parse_args()
    with OpenAI(base_url=arguments.base_url, api_key=arguments.api_key) as client:
        try:
            question, *texts = embed(client, arguments.model, [arguments.question, *TEXTS])
        except APIConnectionError:
            raise SystemExit(
                f"Nobody answers at {arguments.base_url}. Start a server with: headrace serve minilm"
            ) from None
        except APIStatusError as refusal:
            raise SystemExit(f"The server refused ({refusal.status_code}): {refusal.message}") from None
    ranked = sorted(zip((likeness(question, vector) for vector in texts), TEXTS, strict=True), reverse=True)
    for score, text in ranked:
        print(f"{score:6.3f}  {text}")


if __name__ == "__main__":
    main()
