"""The real models in float32 against transformers on the same GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from paged_driver import LOAD, PagedDriver


@pytest.fixture(scope="module", params=LOAD)
def kernels(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def smollm2(kernels: str, smollm2_path: Path, smollm2_reference: Any) -> tuple[Any, Any]:
    return LOAD[kernels](smollm2_path), smollm2_reference


@pytest.fixture(scope="module")
def gemma3(kernels: str, gemma3_path: Path, gemma3_reference: Any) -> tuple[Any, Any]:
    return LOAD[kernels](gemma3_path), gemma3_reference


PROMPTS = [
    [1, 4093, 198, 504, 3575, 282, 4649, 314],
    [504, 2365, 6354, 16438, 27003, 690, 260, 23790, 2767, 30, 378, 1250],
    [42],
]


def check(model, reference):
    driver = PagedDriver(model, block_size=16)
    for sequence, prompt in enumerate(PROMPTS):
        tokens = driver.greedy(prompt, 10, sequence)
        ids = torch.tensor([prompt + tokens])
        with torch.inference_mode():
            expected = reference(ids).logits[0]
        ours = driver.step([(sequence + 100, ids[0].tolist())])[sequence + 100]
        assert (ours - expected).abs().max() < 1e-3
        assert expected[len(prompt) - 1 : -1].argmax(-1).tolist() == tokens


def test_smollm2(smollm2):
    check(*smollm2)


def test_gemma3(gemma3):
    check(*gemma3)


def test_gemma3_beyond_its_window(gemma3):
    """600 tokens, of which the local layers see 512, in chunks that are not multiples of anything."""
    model, reference = gemma3
    ids = torch.randint(5, 100_000, (600,), generator=torch.Generator().manual_seed(0))
    driver = PagedDriver(model, block_size=16)
    chunks = [driver.step([(0, chunk.tolist())])[0][-1] for chunk in ids.split((250, 265, 84, 1))]
    with torch.inference_mode():
        expected = reference(ids[None]).logits[0]

    for logits, position in zip(chunks, (249, 514, 598, 599), strict=True):
        assert (logits - expected[position]).abs().max() < 1e-3
