"""What goes to the engine process and back arrives as it was sent."""

from __future__ import annotations

import pytest

from headrace.core.pooling import PoolingOutput, PoolingParams, PoolingRequest, PoolingTask
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
from headrace.runtime.messages import Stepped, Submit, SubmitPooling, decode_from_engines, decode_to_engines, encode


@pytest.mark.parametrize("early_stopping", [None, True, False, "never"])
def test_a_search(early_stopping) -> None:
    message = Submit(
        3,
        Request(
            request_id="a",
            prompt_ids=[1, 2],
            sampling=TokenSampling(temperature=0.0, seed=1, max_tokens=3, logprobs=0, logprob_token_ids=(5, 6)),
            n=2,
            beam=BeamSearch(width=3, length_penalty=0.5, early_stopping=early_stopping, shown=True),
        ),
    )
    assert decode_to_engines(encode(message)) == message


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
    message = Stepped(3, StepOutput(outputs, StepStats(running=1)))
    assert decode_from_engines(encode(message)) == message


def test_pooling() -> None:
    params = PoolingParams(task=PoolingTask.TOKEN_EMBED, use_activation=False)
    request = PoolingRequest(request_id="a", prompt_ids=[1, 2], params=params, token_type_ids=[0, 1])
    assert decode_to_engines(encode(SubmitPooling(1, request))) == SubmitPooling(1, request)
    pooled = [
        PoolingOutput(request_id="a", shape=[2, 3], data=bytes(range(24)), scheduled_time=0.5),
        PoolingOutput(request_id="b", shape=[], data=b"", error="broken"),
    ]
    message = Stepped(1, StepOutput([], StepStats(), pooled))
    assert decode_from_engines(encode(message)) == message
