"""Section 3.2 of the contract, spelled out for one row with full sorts and float64: slow, and easy to check by eye."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.sampling import LOWEST_TEMPERATURE, TokenSampling
from headrace.kernels.cpu import NoNativeLibrary, load_cpu_kernels
from headrace.kernels.native import NativeKernels
from headrace.schedule.plan import PlanRow, TokenHistory

SLACK = 1e-5
"""How far float32 may move a token across the border of min-p or top-p."""


def make_row(
    *,
    prompt_ids: list[int] | None = None,
    output_ids: list[int] | None = None,
    choice: int = 0,
    output_index: int | None = None,
    **sampling: Any,
) -> PlanRow:
    """A row that samples. `output_index` follows from `output_ids` unless given."""
    prompt_ids = prompt_ids or [0]
    output_ids = output_ids or []
    resolved = TokenSampling(**{"temperature": 1.0, "seed": 0, "max_tokens": 100} | sampling)
    known = prompt_ids + output_ids
    return PlanRow(
        request_id="request",
        choice=choice,
        token_ids=known[-1:],
        start=len(known) - 1,
        block_table=[1],
        sampling=resolved,
        samples=True,
        output_index=len(output_ids) if output_index is None else output_index,
        history=TokenHistory(prompt_ids, output_ids) if resolved.reads_output else None,
    )


def ruled_logits(logits: NDArray[np.float32], row: PlanRow) -> NDArray[np.float32]:
    """Steps 2 to 8."""
    one = row.sampling
    prompt = row.history.prompt_ids if row.history else []
    output = row.history.output_ids if row.history else []
    z = logits.astype(np.float32)
    for i in range(len(z)):
        if one.allowed_token_ids is not None and i not in one.allowed_token_ids:
            z[i] = -np.inf
    for phrase in one.bad_words_ids:
        first, last = list(phrase[:-1]), phrase[-1]
        if len(output) >= len(first) and output[len(output) - len(first) :] == first:
            z[last] = -np.inf
    if row.output_index < one.min_tokens:
        for i in (one.eos_token_id, *one.stop_token_ids):
            if i is not None:
                z[i] = -np.inf
    for i, bias in one.logit_bias.items():
        z[i] += np.float32(bias)
    for i in set(prompt + output):
        r = np.float32(one.repetition_penalty)
        z[i] = z[i] / r if z[i] > 0 else z[i] * r
    for i in set(output):
        z[i] -= np.float32(one.frequency_penalty) * np.float32(output.count(i))
        z[i] -= np.float32(one.presence_penalty)
    return z


def survivors(z: NDArray[np.float32], sampling: TokenSampling, slack: float) -> NDArray[np.bool_]:
    """Steps 11 to 14. A positive `slack` lets a little more through at the borders, a negative one a little less."""
    x = z.astype(np.float64) / max(sampling.temperature, LOWEST_TEMPERATURE)
    alive = np.isfinite(x)
    if sampling.min_p > 0:
        alive &= softmax(x) >= sampling.min_p * (1 - slack) * softmax(x).max()
        alive[np.argmax(x)] = True
    if 0 < sampling.top_k < len(x):
        alive &= x >= np.sort(np.where(alive, x, -np.inf))[-sampling.top_k]
    if sampling.top_p < 1:
        worst_first = sorted(np.flatnonzero(alive), key=lambda i: (x[i], -i))
        running = np.cumsum(softmax(np.where(alive, x, -np.inf))[worst_first])
        for i, mass in zip(worst_first[:-1], running, strict=False):
            alive[i] = mass > 1 - sampling.top_p - slack
    return alive


def distribution(z: NDArray[np.float32], sampling: TokenSampling, alive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Step 15: what is drawn from."""
    x = z.astype(np.float64) / max(sampling.temperature, LOWEST_TEMPERATURE)
    return softmax(np.where(alive, x, -np.inf))


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def native_kernels() -> NativeKernels | None:
    """The library that draws for a CPU, where it was built."""
    try:
        return load_cpu_kernels(2)
    except NoNativeLibrary:
        return None
