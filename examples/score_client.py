"""Score how well texts go together, and rank documents by how well they answer a query, over plain HTTP.

headrace serve minilm          # or a cross-encoder, which judges better
python examples/score_client.py
"""

from __future__ import annotations

import argparse
from typing import Any

import requests

QUESTION = "What is the capital of France?"
DOCUMENTS = ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        response = requests.post(url, json=body, timeout=60)
    except requests.ConnectionError:
        raise SystemExit(f"Nobody answers at {url}. Start a server with: headrace serve minilm") from None
    if response.status_code != 200:
        raise SystemExit(f"The server refused ({response.status_code}): {response.json()['error']['message']}")
    return response.json()


def scores(url: str, model: str, first: str | list[str], second: str | list[str]) -> list[float]:
    """One for each pair: of two texts, of one text with each of a list, or of two lists of one length."""
    answer = post(f"{url}/score", {"model": model, "text_1": first, "text_2": second})
    return [item["score"] for item in answer["data"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--url", default="http://localhost:8000")
    arguments = parser.parse_args()
    url, model = arguments.url, arguments.model
    print("One pair:", scores(url, model, QUESTION, DOCUMENTS[1]))
    print("One with each:", scores(url, model, QUESTION, DOCUMENTS))
    print("Pair by pair:", scores(url, model, ["What is the capital of Brazil?", QUESTION], DOCUMENTS))
    ranking = post(f"{url}/rerank", {"model": model, "query": QUESTION, "documents": DOCUMENTS})
    for item in ranking["results"]:
        print(f"{item['relevance_score']:6.3f}  {item['document']['text']}")


if __name__ == "__main__":
    main()
