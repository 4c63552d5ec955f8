"""What goes to the engine process and back arrives as it was sent."""

from __future__ import annotations

import pytest

from headrace.core.request import (
    BeamSearch,
    FinishReason,
    Request,
    SequenceOutput,
    StepOutput,
    StepStats,
    TokenLogprobs,
)
from headrace.core.sampling import TokenSampling
from headrace.runtime.messages import Stepped, Submit, decode_from_engine, decode_to_engine, encode


@pytest.mark.parametrize("early_stopping", [None, True, False, "never"])
def test_a_search(early_stopping) -> None:
    message = Submit(
        Request(
            request_id="a",
            prompt_ids=[1, 2],
            sampling=TokenSampling(temperature=0.0, seed=1, max_tokens=3, logprobs=0, logprob_token_ids=(5, 6)),
            n=2,
            beam=BeamSearch(width=3, length_penalty=0.5, early_stopping=early_stopping, shown=True),
        )
    )
    assert decode_to_engine(encode(message)) == message


def test_outputs() -> None:
    outputs = [
        SequenceOutput("a", 0, beams=[[1, 2], [3, 4]]),
        SequenceOutput(
            "a",
            1,
            token_ids=[5],
            logprobs=[TokenLogprobs(5, -0.5, 1, [5, 6], [-0.5, -float("inf")], [1, 40])],
            finish_reason=FinishReason.STOP,
            stop_reason=5,
            cumulative_logprob=-0.5,
        ),
    ]
    message = Stepped(StepOutput(outputs, StepStats(running=1)))
    assert decode_from_engine(encode(message)) == message
