"""Who is measured: for each, how it is started with the best settings found, and whether it is installed here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from load import Load, Target, figures
from processes import started

from headrace.bench.load import Outcome
from headrace.bench.samples import Sample

HERE = Path(__file__).parent
MODELS = HERE / ".models"
LLAMA_SOURCE = HERE / ".llama" / "llama.cpp"
LLAMA_BIN = HERE / ".llama" / "build" / "bin"
VLLM = HERE / ".venv-vllm" / "bin" / "vllm"
OPENVINO_PYTHON = HERE / ".venv-openvino" / "bin" / "python"
HEADRACE = Path(sys.executable).with_name("headrace")
FLOAT32_FOLDER = MODELS / "smollm2-f32"
OPENVINO_FOLDER = MODELS / "smollm2-ov-int8"
LLAMA_Q4_0 = MODELS / "smollm2-q4_0.gguf"
LOGS = MODELS / "logs"

WARM_UP = Load(concurrency=2, requests=4, seed="warm-up", output_tokens=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a server has to have room for. Some divide their memory among a fixed number of places at start."""

    sequences: int
    tokens: int
    """Of one sequence, prompt and output."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One life of a contender: what it took to start, and for each load its `figures` with `memory`, the bytes (PSS)
    of all its processes after it."""

    ready_seconds: float
    outcomes: list[dict[str, Any]]


class Contender(Protocol):
    name: str

    @property
    def needs(self) -> Sequence[Path]:
        """Files without which it cannot run."""
        ...

    def visit(self, loads: Sequence[Load], capacity: Capacity) -> Visit:
        """Start it, put a little load on it to warm it up, then `loads` one after the other, and stop it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpContender:
    """A server with /health and /v1/completions. In `command`, {port}, {sequences}, {tokens} and {all_tokens} stand
    for what a visit asks for."""

    name: str
    command: tuple[str | Path, ...]
    port: int
    needs: tuple[Path, ...]
    env: dict[str, str] = field(default_factory=dict)

    def visit(self, loads: Sequence[Load], capacity: Capacity) -> Visit:
        url = f"http://127.0.0.1:{self.port}"
        values = {
            "port": self.port,
            "sequences": capacity.sequences,
            "tokens": capacity.tokens,
            "all_tokens": capacity.sequences * capacity.tokens,
        }
        command = [str(part).format(**values) for part in self.command]
        LOGS.mkdir(parents=True, exist_ok=True)
        with started(command, url, LOGS / f"{self.name.replace(' ', '-')}.log", self.env) as server:
            target = Target(url)
            target.run(WARM_UP)
            outcomes = [target.run(load) | {"memory": server.memory()} for load in loads]
            return Visit(server.ready_seconds, outcomes)


@dataclass(frozen=True, slots=True)
class OpenVino:
    """OpenVINO GenAI, driven in its own process without HTTP; sizes its batch itself."""

    name: str = "OpenVINO int8"
    needs: tuple[Path, ...] = (OPENVINO_PYTHON, OPENVINO_FOLDER)

    def visit(self, loads: Sequence[Load], capacity: Capacity) -> Visit:
        command = [OPENVINO_PYTHON, HERE / "openvino_load.py", OPENVINO_FOLDER]
        work = [
            {
                "concurrency": load.concurrency,
                "prompts": load.prompts(),
                "output_tokens": load.output_tokens,
                "temperature": load.temperature,
            }
            for load in (WARM_UP, *loads)
        ]
        answer = subprocess.run(command, input=json.dumps(work), stdout=subprocess.PIPE, text=True, check=True).stdout
        ready, _, *lines = [json.loads(line) for line in answer.splitlines()]
        outcomes = [
            figures(load, _outcome(load, line)) | {"memory": line["memory"]}
            for load, line in zip(loads, lines, strict=True)
        ]
        return Visit(ready["ready_seconds"], outcomes)


def _outcome(load: Load, line: dict[str, Any]) -> Outcome:
    """What `openvino_load.py` says of a load."""
    samples = [
        Sample(
            sent=sent,
            arrivals=arrivals,
            ended=arrivals[-1],
            prompt_tokens=load.prompt_tokens,
            output_tokens=len(arrivals),
            text="",
        )
        for sent, arrivals in line["samples"]
    ]
    return Outcome(answered=list(zip(load.asks("openvino"), samples, strict=True)), seconds=line["seconds"])


def headrace(name: str, *flags: str) -> HttpContender:
    """Headrace on the known model `smollm2`, with `flags` added."""
    command = (HEADRACE, "serve", "smollm2", "--port", "{port}", *flags)
    return HttpContender(name=name, command=command, port=8101, needs=(HEADRACE,))


def llama_cpp(name: str, model: Path) -> HttpContender:
    """llama.cpp's server on `model`, with a place for every sequence."""
    server = LLAMA_BIN / "llama-server"
    command = (
        server,
        "-m",
        model,
        "--port",
        "{port}",
        "-t",
        "2",
        "-tb",
        "2",
        "-np",
        "{sequences}",
        "-c",
        "{all_tokens}",
    )
    return HttpContender(name=name, command=(*command, "-cb", "--no-webui"), port=8102, needs=(server, model))


VLLM_CPU = HttpContender(
    name="vLLM float32",
    command=(VLLM, "serve", FLOAT32_FOLDER, "--dtype", "float32", "--max-model-len", "{tokens}", "--port", "{port}"),
    port=8103,
    needs=(VLLM, FLOAT32_FOLDER),
    env={
        "OMP_NUM_THREADS": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "0-1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "HF_HUB_OFFLINE": "1",
    },
)

CONTENDERS: dict[str, Contender] = {
    "headrace": headrace("Headrace"),
    "headrace-float32": headrace("Headrace float32", "--dtype", "float32"),
    "llama.cpp": llama_cpp("llama.cpp Q4_0", LLAMA_Q4_0),
    "vllm": VLLM_CPU,
    "openvino": OpenVino(),
}
