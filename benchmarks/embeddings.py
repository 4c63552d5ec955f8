"""Measure texts a second and latency of MiniLM's embeddings: Headrace beside sentence-transformers and infinity.

    python benchmarks/embeddings.py [--rounds 3] [--words 12] [--contenders headrace infinity]

In process: calls with batches of 1, 32 and 256 texts. Over HTTP: one client with the same batches, then 64 clients with
one text each, in a closed loop by `headrace.bench`; vectors travel as base64, as OpenAI's client asks for them. In a
round each contender is measured in turn, in a process of its own, with the same texts; rounds start with another
contender each. All vectors must agree with those of the first. Prints medians over the rounds, and our throughput
over the best of the others, taken within a round. A contender that is not installed is left out, and says so.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
from processes import started

from headrace.bench.endpoints import Ask, Piece
from headrace.bench.load import Load, run
from headrace.bench.wire import Server
from headrace.bench.words import all_words
from headrace.client.call import Request, json_body
from headrace.client.settings import Settings
from headrace.hub import pull

HERE = Path(__file__).parent
LOGS = HERE / ".models" / "logs"
HEADRACE = Path(sys.executable).with_name("headrace")
INFINITY = HERE / ".venv-infinity" / "bin" / "infinity_emb"
INFINITY_FLAGS = ("--served-model-name", "minilm", "--engine", "torch", "--device", "cpu", "--url-prefix", "/v1")
"""Its defaults were the best found: batches of 32, and no BetterTransformer, which brings nothing on a CPU."""

SAMPLE = ("A mill by the river.", "water " * 300, "", "The capital of France is Paris.")
LEAST_LIKENESS = 0.999
IN_PROCESS = "in process"
HTTP = "HTTP"


@dataclass(frozen=True, slots=True)
class Shape:
    """A load: `requests` of `batch` texts each, by `clients` at a time."""

    batch: int
    clients: int
    requests: int

    @property
    def name(self) -> str:
        return f"{self.clients} clients" if self.clients > 1 else f"batch {self.batch}"

    def texts(self, words: int, seed: str) -> list[list[str]]:
        """For each request; a text has `words` words, half as many more or less."""
        drawn = random.Random(f"{seed} {self.name}")
        vocabulary = all_words()
        return [
            [vocabulary.draw_text(drawn.randint(words // 2, words * 3 // 2), drawn).strip() for _ in range(self.batch)]
            for _ in range(self.requests)
        ]


SHAPES = (
    Shape(batch=1, clients=1, requests=200),
    Shape(batch=32, clients=1, requests=20),
    Shape(batch=256, clients=1, requests=4),
    Shape(batch=1, clients=64, requests=1280),
)
WARM_UP = Shape(batch=8, clients=1, requests=4)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one load: texts a second, and milliseconds of a request."""

    rate: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of the loads by their names, and the vectors of `SAMPLE`."""

    loads: dict[str, Figures]
    sample: list[list[float]]


class Contender(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def needs(self) -> Sequence[Path]: ...
    def visit(self, words: int, seed: str) -> Visit: ...


Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One of `LIBRARIES`, called in a process of its own."""

    name: str
    library: str
    where: str = IN_PROCESS
    needs: tuple[Path, ...] = ()

    def visit(self, words: int, seed: str) -> Visit:
        command = [sys.executable, __file__, "--library", self.library, "--words", str(words), "--seed", seed]
        answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        return Visit({name: Figures(**found) for name, found in answer["loads"].items()}, answer["sample"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server with /health and /v1/embeddings. {folder} and {port} in `command` stand for what it gets."""

    name: str
    command: tuple[str | Path, ...]
    port: int
    where: str = HTTP
    needs: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def visit(self, words: int, seed: str) -> Visit:
        url = f"http://127.0.0.1:{self.port}"
        folder = pull("minilm", progress=False)
        command = [str(part).format(folder=folder, port=self.port) for part in self.command]
        LOGS.mkdir(parents=True, exist_ok=True)
        with started(command, url, LOGS / f"{self.name.replace(' ', '-')}.log", self.env):
            sample = served_vectors(url, SAMPLE)
            server = Server(Settings.of(url, "", None, None))
            served(self.name, server, WARM_UP, words, "warm-up")
            loads = {shape.name: served(self.name, server, shape, words, seed) for shape in SHAPES}
        return Visit(loads, sample.tolist())


def served(name: str, server: Server, shape: Shape, words: int, seed: str) -> Figures:
    asks = [ask(texts) for texts in shape.texts(words, seed)]
    outcome = run(server, Load(asks=asks, due=[0.0] * len(asks), concurrency=shape.clients, timeout=300.0))
    if outcome.failures:
        raise SystemExit(f"{name}: {outcome.failures[0].message}")
    return figures([sample.ended - sample.sent for _, sample in outcome.answered], outcome.seconds, shape)


def ask(texts: Sequence[str]) -> Ask:
    body = {"model": "minilm", "input": list(texts) if len(texts) > 1 else texts[0], "encoding_format": "base64"}
    request = Request(method="POST", path="/v1/embeddings", body=json_body(body))

    def read(answer: bytes) -> Piece:
        if len(json.loads(answer)["data"]) != len(texts):
            raise SystemExit("an answer with too few vectors")
        return Piece("", has_choice=False, has_token=False, usage=None)

    return Ask(request, None, None, streamed=False, read=read)


def served_vectors(url: str, texts: Sequence[str]) -> np.ndarray:
    body = {"model": "minilm", "input": list(texts), "encoding_format": "base64"}
    answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).raise_for_status().json()
    return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]])


def figures(seconds: Sequence[float], whole: float, shape: Shape) -> Figures:
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    return Figures(rate=shape.batch * shape.requests / whole, p50=float(p50), p99=float(p99))


def load_headrace(folder: Path) -> Embed:
    from headrace import LLM

    llm = LLM(str(folder))
    return lambda texts: np.array([output.outputs.embedding for output in llm.embed(list(texts), use_tqdm=False)])


def load_sentence_transformers(folder: Path) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(list(texts), batch_size=64, show_progress_bar=False)


LIBRARIES: dict[str, Callable[[Path], Embed]] = {
    "headrace": load_headrace,
    "sentence-transformers": load_sentence_transformers,
}


def visit_library(name: str, words: int, seed: str) -> Visit:
    embed = LIBRARIES[name](pull("minilm", progress=False))
    sample = embed(SAMPLE)
    for texts in WARM_UP.texts(words, "warm-up"):
        embed(texts)
    return Visit(
        {shape.name: timed(embed, shape, words, seed) for shape in SHAPES if shape.clients == 1}, sample.tolist()
    )


def timed(embed: Embed, shape: Shape, words: int, seed: str) -> Figures:
    seconds = []
    for texts in shape.texts(words, seed):
        began = time.perf_counter()
        embed(texts)
        seconds.append(time.perf_counter() - began)
    return figures(seconds, sum(seconds), shape)


CONTENDERS: dict[str, Contender] = {
    "headrace": Served(
        name="Headrace",
        command=(HEADRACE, "serve", "{folder}", "--served-model-name", "minilm", "--port", "{port}"),
        port=8111,
        env={"HEADRACE_DISABLE_UVICORN_ACCESS_LOG": "1"},
    ),
    "sentence-transformers": Served(
        name="sentence-transformers, FastAPI",
        command=(sys.executable, HERE / "sentence_server.py", "{folder}", "--port", "{port}"),
        port=8112,
    ),
    "infinity": Served(
        name="infinity",
        command=(INFINITY, "v2", "--model-id", "{folder}", *INFINITY_FLAGS, "--port", "{port}"),
        port=8113,
        needs=(INFINITY,),
        env={"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
    ),
    "headrace-library": Library(name="Headrace", library="headrace"),
    "sentence-transformers-library": Library(name="sentence-transformers", library="sentence-transformers"),
}


class Results:
    """The visits of all rounds."""

    def __init__(self) -> None:
        self._visits: dict[str, list[Visit]] = {}
        self._expected: np.ndarray | None = None

    def add(self, contender: str, visit: Visit) -> None:
        """Ends the run if the vectors are not those of the others."""
        vectors = np.array(visit.sample)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if self._expected is None:
            self._expected = vectors
        likeness = float((vectors * self._expected).sum(axis=1).min())
        if likeness < LEAST_LIKENESS:
            raise SystemExit(f"{contender}: other vectors than the first contender's, likeness {likeness:.4f}")
        self._visits.setdefault(contender, []).append(visit)

    def table(self) -> list[str]:
        lines = ["| | | load | texts/s | p50 ms | p99 ms | Headrace over it |", "|---|---|---|---|---|---|---|"]
        for shape in SHAPES:
            for name, visits in self._visits.items():
                contender = CONTENDERS[name]
                found = [visit.loads[shape.name] for visit in visits if shape.name in visit.loads]
                if not found:
                    continue
                rate, p50, p99 = (
                    statistics.median(getattr(each, what) for each in found) for what in ("rate", "p50", "p99")
                )
                ratio = self._ratio(shape.name, contender.where, [name])
                shown = "" if contender.name == "Headrace" or ratio is None else f"{ratio:.2f} ×"
                cells = (contender.name, contender.where, shape.name, f"{rate:.0f}", f"{p50:.1f}", f"{p99:.1f}", shown)
                lines.append(f"| {' | '.join(cells)} |")
        return lines

    def verdict(self) -> str:
        """Headrace over the best of the others, over HTTP with the most clients."""
        shape = max(SHAPES, key=lambda shape: shape.clients).name
        others = [name for name in self._visits if CONTENDERS[name].where == HTTP and name != "headrace"]
        ratio = self._ratio(shape, HTTP, others)
        return "" if ratio is None else f"Over HTTP, {shape}: {ratio:.2f} × the best of the others."

    def _ratio(self, shape: str, where: str, others: Sequence[str]) -> float | None:
        """The median over the rounds of our throughput over the best of `others`."""
        own = "headrace" if where == HTTP else "headrace-library"
        if own not in self._visits or not others:
            return None
        rounds = zip(self._visits[own], *(self._visits[name] for name in others), strict=True)
        return statistics.median(
            ours.loads[shape].rate / max(visit.loads[shape].rate for visit in theirs) for ours, *theirs in rounds
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=12, help="words of a text, more or less (default: 12)")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--library", choices=list(LIBRARIES), help=argparse.SUPPRESS)
    parser.add_argument("--seed", default="0", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.library:
        print(json.dumps(asdict(visit_library(args.library, args.words, args.seed))))
        return
    names = [name for name in args.contenders if installed(CONTENDERS[name])]
    results = Results()
    for number in range(args.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            contender = CONTENDERS[name]
            print(
                f"round {number + 1} of {args.rounds}: {contender.name}, {contender.where}", file=sys.stderr, flush=True
            )
            results.add(name, contender.visit(args.words, str(number)))
    print(
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {os.cpu_count()} processors, {args.words} words a text"
    )
    print("", *results.table(), "", results.verdict(), sep="\n")


def installed(contender: Contender) -> bool:
    if missing := [path for path in contender.needs if not path.exists()]:
        print(f"left out: {contender.name}, for want of {', '.join(map(str, missing))}", file=sys.stderr)
    return not missing


if __name__ == "__main__":
    main()
