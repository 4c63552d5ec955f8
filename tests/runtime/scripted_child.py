"""An engine process without models, for `EngineHost(command=COMMAND)`: the real plumbing, scripted answers.

The model path says how loading goes, one word per life of the engine, the last one for all that follow: `fine`,
`slow`, `dies`, `refuses`, `garbage`. Lives are counted in a file beside it. A sequence gets the tokens 0, 1, 2, …; a
prompt that begins with `DEADLY` kills the process in its first step. With `runner="pooling"` an engine answers with its
prompt's ids as floats; an empty prompt is refused.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from array import array
from pathlib import Path

from headrace.core.errors import BadCheckpoint, BadRequest
from headrace.core.pooling import PoolingOutput, PoolingRequest
from headrace.core.request import EngineInfo, FinishReason, Request, SequenceOutput, StepOutput, StepStats
from headrace.runtime.child import run_child
from headrace.runtime.messages import Load

COMMAND = (sys.executable, __file__)
DEADLY = 666
STEP_SECONDS = 0.002


class ScriptedEngine:
    info = EngineInfo(
        architecture="Scripted",
        vocab_size=1000,
        max_model_len=100_000,
        dtype="float32",
        device="cpu",
        kernels="none",
        block_size=16,
        num_blocks=100,
        load_seconds=0.0,
    )

    def __init__(self) -> None:
        self.live: dict[tuple[str, int], tuple[Request, int]] = {}

    @property
    def has_work(self) -> bool:
        return bool(self.live)

    @property
    def stats(self) -> StepStats:
        return StepStats(running=len(self.live))

    def add(self, request: Request) -> None:
        if not request.prompt_ids:
            raise BadRequest("The prompt must have at least 1 token.")
        self.live.update({(request.request_id, choice): (request, 0) for choice in range(request.n)})

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        for key in list(self.live):
            if key[0] == request_id and choice in (None, key[1]):
                del self.live[key]
        return []

    def step(self) -> StepOutput:
        time.sleep(STEP_SECONDS)
        outputs = []
        for (name, choice), (request, count) in list(self.live.items()):
            if request.prompt_ids[0] == DEADLY:
                os.kill(os.getpid(), signal.SIGKILL)
            last = count + 1 == request.sampling.max_tokens
            outputs.append(SequenceOutput(name, choice, [count], finish_reason=FinishReason.LENGTH if last else None))
            if last:
                del self.live[name, choice]
            else:
                self.live[name, choice] = (request, count + 1)
        return StepOutput(outputs, self.stats)


class ScriptedPooler:
    info = ScriptedEngine.info

    def __init__(self) -> None:
        self.waiting: list[PoolingRequest] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting)

    @property
    def stats(self) -> StepStats:
        return StepStats(waiting=len(self.waiting))

    def add(self, request: PoolingRequest) -> None:
        if not request.prompt_ids:
            raise BadRequest("The prompt must have at least 1 token.")
        self.waiting.append(request)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        self.waiting = [request for request in self.waiting if request.request_id != request_id]

    def step(self) -> StepOutput:
        time.sleep(STEP_SECONDS)
        request = self.waiting.pop(0)
        data = array("f", map(float, request.prompt_ids)).tobytes()
        pooled = PoolingOutput(request_id=request.request_id, shape=[len(request.prompt_ids)], data=data)
        return StepOutput([], self.stats, [pooled])


def load(order: Load, progress: object) -> ScriptedEngine | ScriptedPooler:
    script = Path(order.model_path)
    lives = script.with_suffix(".lives")
    life = int(lives.read_text()) if lives.exists() else 0
    lives.write_text(str(life + 1))
    words = script.read_text().split()
    match words[min(life, len(words) - 1)]:
        case "slow":
            time.sleep(60)
        case "dies":
            os._exit(3)
        case "refuses":
            raise BadCheckpoint("no such weights")
        case "garbage":
            progress("not", "numbers")
    return ScriptedPooler() if order.config.runner == "pooling" else ScriptedEngine()


if __name__ == "__main__":
    sys.exit(run_child(int(sys.argv[1]), load))
