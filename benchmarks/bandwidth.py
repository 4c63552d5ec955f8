"""The rate at which this machine reads memory, and what share of it decoding one sequence can be said to use.

    python benchmarks/bandwidth.py [--threads 2] [--tokens-per-second 66]

Needs a C compiler (`cc`): the reading loop is `bandwidth.c`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from headrace.hub import open_checkpoint

SOURCE = Path(__file__).with_name("bandwidth.c")
MEGABYTES = 1024
"""Far more than any cache holds."""
PASSES = 8


def read_bandwidth(threads: int) -> float:
    """Bytes a second that `threads` threads read together, the best of some passes over one large array."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "bandwidth"
        subprocess.run(["cc", "-O3", "-march=native", "-pthread", "-o", program, SOURCE], check=True)
        return float(subprocess.check_output([program, str(threads), str(MEGABYTES), str(PASSES)]))


def weight_bytes(model: str) -> int:
    """Bytes of weight matrices in a GGUF file: what decoding one token has to read. Of a tied embedding, which is the
    output matrix too, that is all; of one that is not, a single row, so it does not count.
    """
    header = open_checkpoint(model).gguf
    if header is None:
        raise SystemExit(f"{model} is no GGUF file")
    untied = "output.weight" in header.tensors
    return sum(
        tensor.nbytes
        for name, tensor in header.tensors.items()
        if len(tensor.shape) == 2 and not (untied and name == "token_embd.weight")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens-per-second", type=float, help="of decoding one sequence")
    args = parser.parse_args()
    bandwidth, weights = read_bandwidth(args.threads), weight_bytes(args.model)
    print(f"{bandwidth / 1e9:.1f} GB/s with {args.threads} threads; {args.model}: {weights / 1e6:.1f} MB of weights")
    print(f"that allows {bandwidth / weights:.0f} tokens a second for one sequence")
    if args.tokens_per_second is not None:
        print(f"{args.tokens_per_second:g} tok/s reach {args.tokens_per_second * weights / bandwidth:.0%} of it")


if __name__ == "__main__":
    main()
