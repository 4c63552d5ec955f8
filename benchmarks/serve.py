"""Load one OpenAI-compatible server and report what its users would see.

    python benchmarks/serve.py --url http://127.0.0.1:8000 --concurrency 1 8 32

A closed loop: `concurrency` clients, each sending its next completion when the last has ended, 128 random prompt ids
and 64 output tokens each. Temperature is whatever the server takes by default unless --temperature is given. Needs the
standard library only, and works against any server with /v1/completions, so peers are measured by the same command.
"""

from __future__ import annotations

import argparse

from load import Load, first_model, run

COLUMNS = {
    "concurrency": "concurrency",
    "prompt_tokens": "prompt tokens",
    "requests": "requests",
    "output_rate": "output tok/s",
    "ttft_p50": "TTFT ms p50",
    "ttft_p99": "TTFT ms p99",
    "tpot_p50": "ms/token p50",
    "tpot_p99": "ms/token p99",
    "client_cpu": "client CPU s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="default: the first one the server lists")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[128])
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--requests-per-client", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=49152, help="prompt ids are drawn below this")
    parser.add_argument("--temperature", type=float, help="default: not sent")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    model = args.model or first_model(args.url)
    run(args.url, model, Load(concurrency=2, requests=2, seed=f"{args.seed} warm-up", vocab=args.vocab))
    print("| " + " | ".join(COLUMNS.values()) + " |\n|" + "---|" * len(COLUMNS))
    for prompt_tokens in args.prompt_tokens:
        for concurrency in args.concurrency:
            load = Load(
                concurrency=concurrency,
                requests=max(concurrency * args.requests_per_client, 4),
                seed=f"{args.seed} {prompt_tokens} {concurrency}",
                prompt_tokens=prompt_tokens,
                output_tokens=args.output_tokens,
                temperature=args.temperature,
                vocab=args.vocab,
            )
            outcome = run(args.url, model, load).as_dict()
            print("| " + " | ".join(_cell(outcome[name]) for name in COLUMNS) + " |", flush=True)


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
