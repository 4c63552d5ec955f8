"""The contract's order: end of sequence, stop tokens, length; `min_tokens` switches the first two off."""

from __future__ import annotations

import pytest
from simulation import request

from headrace.core.request import FinishReason
from headrace.schedule.sequence import Sequence
from headrace.schedule.stopping import ending

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


@pytest.mark.parametrize(
    ("output", "sample", "expected"),
    [
        ([1], {}, None),
        ([2], {"eos_token_id": 2}, (STOP, None)),
        ([2], {"eos_token_id": 2, "ignore_eos": True}, None),
        ([2], {"stop_token_ids": (5, 2)}, (STOP, 2)),
        ([2], {"eos_token_id": 2, "stop_token_ids": (2,)}, (STOP, None)),
        ([2], {"eos_token_id": 2, "stop_token_ids": (2,), "ignore_eos": True}, (STOP, 2)),
        ([2, 1], {"eos_token_id": 2, "stop_token_ids": (2,)}, None),
        ([2], {"eos_token_id": 2, "stop_token_ids": (2,), "min_tokens": 2}, None),
        ([1, 2], {"eos_token_id": 2, "min_tokens": 2}, (STOP, None)),
        ([1, 1, 1], {"max_tokens": 3}, (LENGTH, None)),
        ([1, 1, 2], {"max_tokens": 3, "eos_token_id": 2}, (STOP, None)),
        ([1, 1, 2], {"max_tokens": 3, "stop_token_ids": (2,)}, (STOP, 2)),
        ([1, 1, 2], {"max_tokens": 3, "eos_token_id": 2, "min_tokens": 3, "ignore_eos": True}, (LENGTH, None)),
        ([1] * 5, {}, (LENGTH, None)),
        ([1, 1, 1, 1, 2], {"eos_token_id": 2}, (STOP, None)),
    ],
)
def test_ending(output: list[int], sample: dict, expected: tuple | None) -> None:
    sequence = Sequence(request=request("r", 5, sample={"max_tokens": 99, **sample}), choice=0, rank=(0, 0.0, 0, 0))
    sequence.output_ids += output
    assert ending(sequence, max_model_len=10) == expected
