"""The job API with the official `runpod` SDK: nothing but the base URL is different.

headrace serve smollm2
python examples/runpod_sdk.py
python examples/runpod_sdk.py --base-url http://localhost:8000/v2 --endpoint smollm2 --api-key KEY
"""

from __future__ import annotations

import argparse
import asyncio

import aiohttp
import runpod


def one_after_the_other(endpoint_id: str, prompt: str) -> None:
    endpoint = runpod.Endpoint(endpoint_id)
    sampling = {"temperature": 0, "max_tokens": 24}
    (output,) = endpoint.run_sync({"prompt": prompt, "sampling_params": sampling})
    print(f"Waited for: {output['choices'][0]['tokens'][0]!r}")

    job = endpoint.run({"input": {"prompt": prompt, "sampling_params": sampling, "stream": True}})
    print(f"Job {job.job_id}: ", end="")
    for chunk in job.stream():
        print("".join(chunk["choices"][0]["tokens"]), end="", flush=True)
    print(f" [{job.status()}]")

    unwanted = endpoint.run({"prompt": prompt, "sampling_params": {"max_tokens": 1000, "ignore_eos": True}})
    print(f"Cancelled: {unwanted.cancel()['status']}")
    jobs = endpoint.health()["jobs"]
    print(f"Completed so far: {jobs['completed']}, waiting: {jobs['inQueue']}")


async def at_the_same_time(endpoint_id: str, questions: list[str]) -> None:
    async with aiohttp.ClientSession() as session:
        endpoint = runpod.AsyncioEndpoint(endpoint_id, session)

        async def ask(question: str) -> str:
            messages = [{"role": "user", "content": question}]
            job = await endpoint.run({"messages": messages, "sampling_params": {"temperature": 0, "max_tokens": 24}})
            (output,) = await job.output(timeout=300)
            return output["choices"][0]["tokens"][0]

        for question, answer in zip(questions, await asyncio.gather(*map(ask, questions)), strict=True):
            print(f"{question}\n  {answer!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://localhost:8000/v2")
    parser.add_argument("--endpoint", default="default")
    parser.add_argument("--api-key", default="local")
    parser.add_argument("--prompt", default="The capital of France is")
    arguments = parser.parse_args()
    runpod.endpoint_url_base = arguments.base_url
    runpod.api_key = arguments.api_key
    one_after_the_other(arguments.endpoint, arguments.prompt)
    asyncio.run(at_the_same_time(arguments.endpoint, ["What is a river?", "What is a mill?"]))


if __name__ == "__main__":
    main()
