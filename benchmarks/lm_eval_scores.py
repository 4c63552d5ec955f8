"""Score one checkpoint twice with the LM evaluation harness: served by Headrace, and by transformers. Compare.

    benchmarks/peers.sh lm-eval
    benchmarks/.venv-lmeval/bin/python benchmarks/lm_eval_scores.py [FOLDER]

FOLDER is a checkpoint in safetensors; default: SmolLM2 as float32, which `peers.sh` writes. Both compute in float32
with the folder's own tokenizer. Headrace answers the harness's `local-completions` over HTTP: log-likelihoods of
answers, of endings and of whole passages from echoed prompts with logprobs, and texts up to a stop string. The tasks
and their data are in `lm_eval_tasks/`; nothing is fetched. Ends with status 1 if a score differs by more than 0.001.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TASKS = ["headrace_choices", "headrace_endings", "headrace_passages", "headrace_answers"]
TOLERANCE = 1e-3
CONTEXT = 2048


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / ".models" / "smollm2-f32")
    parser.add_argument("--headrace", default=str(HERE.parent / ".venv/bin/headrace"), help="the command to serve with")
    parser.add_argument("--concurrency", type=int, default=4)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    # The harness reads data and caches relative to these; it must not look for anything elsewhere.
    os.chdir(HERE)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(HERE / ".models" / "lm-eval")}

    with serving(arguments.headrace, folder) as url:
        served = evaluate(
            "local-completions",
            {
                "base_url": f"{url}/v1/completions",
                "model": str(folder),
                "tokenizer": str(folder),
                "tokenizer_backend": "huggingface",
                "max_length": CONTEXT,
                "num_concurrent": arguments.concurrency,
            },
        )
    reference = evaluate(
        "hf",
        {
            "pretrained": str(folder),
            "dtype": "float32",
            # torch's log-softmax over a vocabulary in float32 is off by 1e-5 a token, always to the same side.
            "softmax_dtype": "float64",
            "max_length": CONTEXT,
            "device": "cpu",
        },
    )
    return report(served, reference)


@contextlib.contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["--port", str(port), "--dtype", "float32", "--max-model-len", str(CONTEXT), "--log-level", "WARNING"]
    server = subprocess.Popen(
        [command, "serve", str(folder), *flags, "--disable-uvicorn-access-log"], stdout=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not healthy(url):
            if server.poll() is not None:
                raise SystemExit("The server has ended before it was ready.")
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health"):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def evaluate(model: str, model_args: dict[str, Any]) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(HERE / "lm_eval_tasks"), include_defaults=False)
    return simple_evaluate(
        model, model_args=model_args, tasks=TASKS, task_manager=manager, batch_size=8, bootstrap_iters=0
    )


def report(served: dict[str, Any], reference: dict[str, Any]) -> int:
    """Print the scores side by side, and return the exit status."""
    print("\n| Task | Metric | Headrace | transformers | difference |\n|---|---|---|---|---|")
    worst = 0.0
    for task in TASKS:
        for metric, theirs in reference["results"][task].items():
            if not isinstance(theirs, float | int) or "stderr" in metric or metric in ("alias", "sample_len"):
                continue
            ours = served["results"][task][metric]
            worst = max(worst, abs(ours - theirs))
            print(f"| {task} | {metric.split(',')[0]} | {ours:.6f} | {theirs:.6f} | {abs(ours - theirs):.1e} |")
    likelihoods, texts = compare_samples(served["samples"], reference["samples"])
    print(f"\nLargest difference of a score: {worst:.1e}")
    print(f"Largest difference of a log-likelihood: {max(likelihoods):.1e} ({len(likelihoods)} compared)")
    print(f"Generated texts that are the same: {sum(texts)} of {len(texts)}")
    return 0 if worst <= TOLERANCE else 1


def compare_samples(served: dict[str, Any], reference: dict[str, Any]) -> tuple[list[float], list[bool]]:
    """Differences of all log-likelihoods, and for each generated text whether it is the same."""
    likelihoods: list[float] = []
    texts: list[bool] = []
    for task in TASKS:
        by_document = {sample["doc_id"]: sample for sample in reference[task]}
        for sample in served[task]:
            theirs = flat(by_document[sample["doc_id"]]["resps"])
            for ours, their in zip(flat(sample["resps"]), theirs, strict=True):
                if isinstance(ours, str):
                    texts.append(ours == their)
                elif not isinstance(ours, bool) and math.isfinite(ours):
                    likelihoods.append(abs(ours - their))
    return likelihoods, texts


def flat(nested: Any) -> list[Any]:
    if isinstance(nested, list | tuple):
        return [leaf for inner in nested for leaf in flat(inner)]
    return [nested]


if __name__ == "__main__":
    sys.exit(main())
