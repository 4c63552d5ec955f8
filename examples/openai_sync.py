"""Ask a chat model, and have a text continued, with OpenAI's client.

headrace serve
python examples/openai_sync.py "What is a headrace?"
"""

from __future__ import annotations

import argparse

from openai import APIConnectionError, APIStatusError, OpenAI


def ask(client: OpenAI, model: str, question: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=48, temperature=0.0
    )
    return answer.choices[0].message.content or ""


def go_on(client: OpenAI, model: str, beginning: str) -> str:
    # What OpenAI's API does not know goes into extra_body.
    completion = client.completions.create(
        model=model, prompt=beginning, max_tokens=16, temperature=0.0, extra_body={"repetition_penalty": 1.1}
    )
    return beginning + completion.choices[0].text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="What is the capital of France?")
    parser.add_argument("--base-url", default="http://localhost:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    arguments = parser.parse_args()
    with OpenAI(base_url=arguments.base_url, api_key=arguments.api_key) as client:
        try:
            model = client.models.list().data[0].id
            print("Answer:", ask(client, model, arguments.question))
            print("Text:", go_on(client, model, "The capital of France is"))
        except APIConnectionError:
            raise SystemExit(f"Nobody answers at {arguments.base_url}. Start a server with: headrace serve") from None
        except APIStatusError as refusal:
            raise SystemExit(f"The server refused ({refusal.status_code}): {refusal.message}") from None


if __name__ == "__main__":
    main()
