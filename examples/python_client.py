"""Headrace's own client: completions, chat, token ids and jobs, one at a time and many at once.

headrace serve
python examples/python_client.py "What is a headrace?"
"""

from __future__ import annotations

import argparse
import asyncio

from headrace.client import AsyncClient, Client, ClientError, ConnectFailed


def chat(client: Client, question: str) -> None:
    print("Answer: ", end="")
    with client.chat([{"role": "user", "content": question}], stream=True, max_tokens=48, temperature=0.0) as stream:
        for chunk in stream:
            print(chunk.text, end="", flush=True)
    print()


def token_ids(client: Client, text: str) -> None:
    prompt = client.tokenize(text).tokens
    answer = client.tokens(prompt, {"max_tokens": 8, "temperature": 0.0})
    print("Token ids:", prompt, "->", answer.token_ids)
    print("Text:", client.detokenize(answer.token_ids))


def job(client: Client, text: str) -> None:
    """A job that was accepted is done, whatever happens to this program or to the server."""
    queued = client.jobs.run({"prompt": text, "stream": True, "sampling_params": {"max_tokens": 8, "temperature": 0}})
    with client.jobs.stream(queued.id) as chunks:
        pieces = [piece for chunk in chunks for piece in chunk["choices"][0]["tokens"]]
    print("Job:", client.jobs.status(queued.id).status, "".join(pieces))


async def many(url: str, prompts: list[str]) -> None:
    async with AsyncClient(url) as client:
        answers = await asyncio.gather(*(client.complete(prompt, max_tokens=8) for prompt in prompts))
    for prompt, answer in zip(prompts, answers, strict=True):
        print(f"{prompt}{answer.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="What is the capital of France?")
    parser.add_argument("--url", default="http://localhost:8000")
    arguments = parser.parse_args()
    try:
        with Client(arguments.url) as client:
            print("Models:", ", ".join(model.id for model in client.models()))
            chat(client, arguments.question)
            token_ids(client, "The capital of France is")
            job(client, "The capital of France is")
        asyncio.run(many(arguments.url, ["One river is", "One lake is", "One sea is"]))
    except ConnectFailed:
        raise SystemExit(f"Nobody answers at {arguments.url}. Start a server with: headrace serve") from None
    except ClientError as error:
        raise SystemExit(f"The server refused: {error}") from None


if __name__ == "__main__":
    main()
