"""Rank documents by how well they answer a query, with Cohere's client.

headrace serve minilm          # or a cross-encoder, which judges better
python examples/cohere_rerank.py "What brings water to a mill?"
"""

from __future__ import annotations

import argparse

import cohere
import httpx
from cohere.core import ApiError

DOCUMENTS = [
    "The capital of France is Paris.",
    "A headrace is the channel that carries water to a mill wheel.",
    "Bread is made of flour, water, salt and yeast.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", nargs="?", default="What brings water to a mill?")
    parser.add_argument("--top-n", type=int, default=2)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--base-url", default="http://localhost:8000")
    parser.add_argument("--api-key", default="EMPTY")
    arguments = parser.parse_args()
    client = cohere.ClientV2(base_url=arguments.base_url, api_key=arguments.api_key)
    try:
        answer = client.rerank(model=arguments.model, query=arguments.query, documents=DOCUMENTS, top_n=arguments.top_n)
    except httpx.ConnectError:
        raise SystemExit(
            f"Nobody answers at {arguments.base_url}. Start a server with: headrace serve minilm"
        ) from None
    except ApiError as refusal:
        raise SystemExit(f"The server refused ({refusal.status_code}): {refusal.body}") from None
    for result in answer.results:
        print(f"{result.relevance_score:6.3f}  {DOCUMENTS[result.index]}")


if __name__ == "__main__":
    main()
