"""Show an answer as it is written, then what it cost.

headrace serve
python examples/openai_streaming.py "Tell me about rivers."
"""

from __future__ import annotations

import argparse

from openai import OpenAI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="Tell me about rivers.")
    parser.add_argument("--base-url", default="http://localhost:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    parser.add_argument("--max-tokens", type=int, default=64)
    arguments = parser.parse_args()
    with OpenAI(base_url=arguments.base_url, api_key=arguments.api_key) as client:
        stream = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": arguments.question}],
            max_tokens=arguments.max_tokens,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
                if choice.finish_reason is not None:
                    print(f"\n[ended by {choice.finish_reason}]")
            if chunk.usage is not None:
                print(f"[{chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} tokens out]")


if __name__ == "__main__":
    main()
