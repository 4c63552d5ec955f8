"""Ask several questions at once: the server works on all of them together.

headrace serve
python examples/openai_async.py "What is a river?" "What is a mill?"
"""

from __future__ import annotations

import argparse
import asyncio

from openai import AsyncOpenAI

QUESTIONS = ["What is the capital of France?", "What is the capital of Spain?", "What is the capital of Italy?"]


async def ask(client: AsyncOpenAI, model: str, question: str) -> str:
    answer = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=32, temperature=0.0
    )
    return answer.choices[0].message.content or ""


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--base-url", default="http://localhost:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    arguments = parser.parse_args()
    async with AsyncOpenAI(base_url=arguments.base_url, api_key=arguments.api_key) as client:
        model = (await client.models.list()).data[0].id
        answers = await asyncio.gather(*(ask(client, model, question) for question in arguments.questions))
    for question, answer in zip(arguments.questions, answers, strict=True):
        print(f"{question}\n  {answer}")


if __name__ == "__main__":
    asyncio.run(main())
