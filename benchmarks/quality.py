"""What precision costs: next-token distributions on a text, against exactly dequantised float32.

    python benchmarks/quality.py [--text ../shared/texts/quality.txt] [--window 512]

Teacher forced: the text is one sequence, and after each of its tokens the logits of the next are compared over the
whole vocabulary. The reference is Headrace's reference kernels in float32 on the same checkpoint. Reported are the mean
of KL(reference || candidate) in nats, the share of positions where both find the same token most likely, and the
largest difference of a logit. llama.cpp, if it is built, gets the same ids through `llama_logits.cpp`.

--window cuts the text into sequences of so many tokens. The model is unstable after some of the beginnings that makes
(in mid-code, say), and a few positions then outweigh all others, whoever computes them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import FLOAT32_FOLDER, LLAMA_BIN, LLAMA_Q4_0, LLAMA_SOURCE
from torch import Tensor

from headrace.config.engine import EngineConfig
from headrace.core.machine import usable_cores
from headrace.engine.assemble import build_decoder, select_native_kernels
from headrace.engine.kv_cache import KvCache
from headrace.hub import open_checkpoint
from headrace.kernels.ops import AttentionBatch
from headrace.models import read_blueprint
from headrace.text import Tokenizer
from headrace.weights import load_weights

HERE = Path(__file__).parent
CPU = torch.device("cpu")
ROWS_AT_ONCE = 64
"""Distributions compared at once, in float64."""

Logits = Iterator[Tensor]
"""float32 [up to `ROWS_AT_ONCE`, vocabulary]: after each token, in order; a window's last piece may be shorter. A piece
is used up before the next is asked for."""


@dataclass(slots=True)
class Difference:
    """Sums over positions."""

    positions: int = 0
    kl: float = 0.0
    agreements: int = 0
    max_logit_difference: float = 0.0

    def add(self, reference: Tensor, candidate: Tensor) -> None:
        p, q = reference.double().log_softmax(-1), candidate.double().log_softmax(-1)
        self.positions += len(reference)
        self.kl += float((p.exp() * (p - q)).sum())
        self.agreements += int((reference.argmax(-1) == candidate.argmax(-1)).sum())
        self.max_logit_difference = max(self.max_logit_difference, float((reference - candidate).abs().max()))

    def as_dict(self) -> dict[str, Any]:
        return {
            "positions": self.positions,
            "mean_kl": self.kl / self.positions,
            "top1_agreement": self.agreements / self.positions,
            "max_logit_difference": self.max_logit_difference,
        }


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something to compare with float32 on the checkpoint `model`."""

    label: str
    model: str
    run: Callable[[Sequence[list[int]]], Logits]
    needs: tuple[Path, ...] = field(default=())


def headrace(label: str, model: str, **flags: Any) -> Candidate:
    needs = (Path(model),) if "/" in model else ()
    return Candidate(label, model, lambda windows: headrace_logits(model, EngineConfig(**flags), windows), needs)


def llama_cpp(label: str, path: Path, threads: int) -> Candidate:
    library = LLAMA_BIN / "libllama.so"
    return Candidate(label, "smollm2", lambda windows: llama_logits(path, windows, threads), (library, path))


@torch.inference_mode()
def headrace_logits(model: str, config: EngineConfig, windows: Sequence[list[int]]) -> Logits:
    """Each window as one prompt in one step, in blocks 1, 2, 3, … of a KV cache of its own."""
    checkpoint = open_checkpoint(model)
    blueprint = read_blueprint(checkpoint.config)
    decoder = build_decoder(blueprint, checkpoint, config, CPU, select_native_kernels(config, CPU))
    load_weights(decoder, checkpoint)
    layout = decoder.kv_layout(config.block_size, config.kv_cache_dtype)
    num_blocks = -(-max(map(len, windows)) // config.block_size)
    cache = KvCache(layout, num_layers=decoder.spec.num_layers, num_blocks=num_blocks, device=CPU)
    view = decoder.kv_view(cache.memory, layout)
    for ids in windows:
        positions = torch.arange(len(ids))
        batch = AttentionBatch(
            positions=positions,
            slot_mapping=config.block_size + positions,
            block_tables=torch.arange(1, num_blocks + 1)[None, : -(-len(ids) // config.block_size)].contiguous(),
            context_lens=torch.tensor([len(ids)]),
            query_start=[0, len(ids)],
            num_decodes=int(len(ids) == 1),
        )
        hidden = decoder.forward(torch.tensor(ids), batch, view)
        for rows in hidden.split(ROWS_AT_ONCE):
            yield decoder.logits(rows)


def llama_logits(path: Path, windows: Sequence[list[int]], threads: int) -> Logits:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        headers = [f"-I{LLAMA_SOURCE / 'include'}", f"-I{LLAMA_SOURCE / 'ggml' / 'include'}"]
        libraries = [f"-L{LLAMA_BIN}", f"-Wl,-rpath,{LLAMA_BIN}", "-lllama", "-lggml", "-lggml-base"]
        program = ["c++", "-std=c++17", "-O2", *headers, HERE / "llama_logits.cpp", *libraries]
        subprocess.run([*program, "-o", folder / "llama_logits"], check=True)
        np.array([token for window in windows for token in window], dtype=np.int32).tofile(folder / "ids")
        command = [folder / "llama_logits", path, folder / "ids", str(len(windows[0])), str(threads), folder / "logits"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        count = sum(map(len, windows))
        logits = np.memmap(folder / "logits", dtype=np.float32, mode="c").reshape(count, -1)
        start = 0
        for window in windows:
            yield from torch.from_numpy(logits[start : start + len(window)]).split(ROWS_AT_ONCE)
            start += len(window)


def compare(candidates: Sequence[Candidate], windows: Sequence[list[int]]) -> list[dict[str, Any]]:
    """All candidates of one model against its float32, in step, so that few logits are held at once."""
    reference = headrace_logits(candidates[0].model, EngineConfig(kernels="reference", dtype="float32"), windows)
    runs = [candidate.run(windows) for candidate in candidates]
    differences = [Difference() for _ in candidates]
    for expected, *found in zip(reference, *runs, strict=True):
        for difference, logits in zip(differences, found, strict=True):
            difference.add(expected, logits)
    return [
        {"candidate": candidate.label} | difference.as_dict()
        for candidate, difference in zip(candidates, differences, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=HERE.parent.parent / "shared" / "texts" / "quality.txt")
    parser.add_argument("--window", type=int, help="default: the whole text")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, default=HERE / "results" / "quality.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    checkpoint = open_checkpoint("smollm2")
    ids = Tokenizer.load(checkpoint).encode(args.text.read_text(encoding="utf-8"))
    window = args.window or len(ids)
    windows = [ids[start : start + window] for start in range(0, len(ids), window)]
    folder, native = str(FLOAT32_FOLDER), {"kernels": "native", "threads": args.threads}
    candidates = [
        headrace("GGUF file (Q4_1), as served by default", "smollm2", **native),
        headrace("GGUF file, KV cache in int8", "smollm2", kv_cache_dtype="int8", **native),
        headrace("GGUF file in float32", "smollm2", dtype="float32", **native),
        llama_cpp("llama.cpp on the same file", checkpoint.path, args.threads),
        llama_cpp("llama.cpp on the file requantised to Q4_0", LLAMA_Q4_0, args.threads),
        headrace("float checkpoint, --quantization int8", folder, quantization="int8", **native),
    ]
    rows = []
    for model in ("smollm2", folder):
        there = [it for it in candidates if it.model == model and all(path.exists() for path in it.needs)]
        if there:
            rows += compare(there, windows)
    for row in rows:
        print(
            f"{row['candidate']}: KL {row['mean_kl']:.5f}, top-1 {row['top1_agreement']:.2%}, "
            f"largest difference of a logit {row['max_logit_difference']:.2g}"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"text": args.text.name, "tokens": len(ids), "window": window, "rows": rows}
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
