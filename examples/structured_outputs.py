"""Hold answers to a form: a pydantic model, a choice, a regular expression.

headrace serve
python examples/structured_outputs.py "Invent a cat."
"""

from __future__ import annotations

import argparse
from typing import Literal

from openai import APIConnectionError, APIStatusError, OpenAI
from pydantic import BaseModel, Field


class Pet(BaseModel):
    kind: Literal["cat", "dog", "fish"]
    name: str = Field(max_length=16)
    age: int = Field(ge=0, le=30)


def invent(client: OpenAI, model: str, wish: str) -> Pet | None:
    completion = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": wish}], response_format=Pet, max_tokens=100
    )
    return completion.choices[0].message.parsed


def classify(client: OpenAI, model: str, text: str) -> str:
    # What OpenAI's API does not know goes into extra_body.
    completion = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"Positive or negative? {text}"}],
        extra_body={"structured_outputs": {"choice": ["positive", "negative"]}},
    )
    return completion.choices[0].message.content or ""


def telephone(client: OpenAI, model: str) -> str:
    completion = client.completions.create(
        model=model,
        prompt="Call me at ",
        extra_body={"structured_outputs": {"regex": r"\+1-\d{3}-\d{4}"}},
        max_tokens=32,
    )
    return completion.choices[0].text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wish", nargs="?", default="Invent a pet.")
    parser.add_argument("--base-url", default="http://localhost:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    arguments = parser.parse_args()
    with OpenAI(base_url=arguments.base_url, api_key=arguments.api_key) as client:
        try:
            model = client.models.list().data[0].id
            print("Pet:", invent(client, model, arguments.wish))
            print("Mood:", classify(client, model, "The mill runs day and night, and we love it."))
            print("Number:", telephone(client, model))
        except APIConnectionError:
            raise SystemExit(f"Nobody answers at {arguments.base_url}. Start a server with: headrace serve") from None
        except APIStatusError as refusal:
            raise SystemExit(f"The server refused ({refusal.status_code}): {refusal.message}") from None


if __name__ == "__main__":
    main()
