"""The closed loop of `load.py` inside the process of an OpenVINO GenAI pipeline, which brings no server.

    benchmarks/.venv-openvino/bin/python benchmarks/openvino_load.py FOLDER < loads.json

Reads a list of loads, each with its `prompts` (token ids), `concurrency`, `output_tokens` and `temperature`. Writes one
JSON object a line: first `{"ready_seconds": …}`, then for each load its `seconds`, its `samples` (monotonic seconds at
which a prompt was handed over, and at which each token came) and `memory`, the bytes (PSS) of the process after it. No
HTTP and no detokenizing here: what it measures is a bound on what a server around OpenVINO could do. Where a load has
no temperature, tokens are sampled at 1.0, as servers do. Needs nothing of Headrace: it has an environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from processes import pss_bytes

KV_CACHE_GB = 2


def main(folder: str) -> None:
    import numpy as np  # after the clock has started: importing is part of getting ready
    import openvino as ov
    import openvino_genai as genai

    scheduling = genai.SchedulerConfig()
    scheduling.cache_size = KV_CACHE_GB
    pipeline = genai.ContinuousBatchingPipeline(folder, scheduling, "CPU")
    _say({"ready_seconds": time.monotonic() - BEGAN})

    def tensor(prompt: list[int]) -> Any:
        return ov.Tensor(np.array([prompt], dtype=np.int64))

    def generation_config(load: dict[str, Any]) -> Any:
        config = genai.GenerationConfig()
        config.max_new_tokens = load["output_tokens"]
        config.ignore_eos = True
        if load["temperature"] != 0:
            config.do_sample = True
            config.temperature = 1.0 if load["temperature"] is None else load["temperature"]
            config.top_p = 1.0
            config.top_k = sys.maxsize
        return config

    for load in json.load(sys.stdin):
        prompts = [tensor(prompt) for prompt in load["prompts"]]
        outcome = _closed_loop(pipeline, load, prompts, generation_config(load))
        _say(outcome | {"memory": pss_bytes(os.getpid())})


def _closed_loop(pipeline: Any, load: dict[str, Any], prompts: list[Any], config: Any) -> dict[str, Any]:
    waiting = iter(enumerate(prompts))
    live: dict[Any, tuple[float, list[float]]] = {}
    samples: list[tuple[float, list[float]]] = []
    began = time.monotonic()

    def send_next() -> None:
        if (following := next(waiting, None)) is not None:
            sent = time.monotonic()
            live[pipeline.add_request(*following, config)] = (sent, [])

    for _ in range(load["concurrency"]):
        send_next()
    while live:
        pipeline.step()
        now = time.monotonic()
        for handle, (sent, arrivals) in list(live.items()):
            if handle.can_read():
                arrivals += [now for output in handle.read().values() for _ in output.generated_ids]
            if len(arrivals) >= load["output_tokens"]:
                samples.append((sent, arrivals))
                del live[handle]
                send_next()
    return {"seconds": time.monotonic() - began, "samples": samples}


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


BEGAN = time.monotonic()

if __name__ == "__main__":
    main(sys.argv[1])
