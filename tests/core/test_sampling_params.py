"""What `SamplingParams` accepts, and how it refuses the rest."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace.core.errors import BadRequest
from headrace.core.sampling import SamplingParams

HUGE = 10**400

GOOD = [
    {"temperature": 0},
    {"temperature": 2.0},
    {"top_p": 1e-9},
    {"top_k": -1},
    {"top_k": 10**9},
    {"min_p": 1},
    {"presence_penalty": -2, "frequency_penalty": 2},
    {"seed": -(2**63)},
    {"seed": 2**63 - 1},
    {"max_tokens": None, "min_tokens": 5},
    {"stop": "x"},
    {"stop": ["x", "y"]},
    {"logit_bias": {3: -100}},
    {"logprobs": -1, "prompt_logprobs": 0},
    {"n": 2, "best_of": 2},
    {"logprobs": 0, "logprob_token_ids": [5] * 128},
    {"use_beam_search": True, "n": 2, "temperature": 0},
    {"use_beam_search": True, "best_of": 4, "length_penalty": -50, "early_stopping": "never"},
    {"early_stopping": None},
]

BAD = [
    ("n", 0),
    ("n", 1.5),
    ("n", True),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", math.nan),
    ("temperature", "warm"),
    ("top_p", 0),
    ("top_p", 1.01),
    ("top_k", -2),
    ("top_k", HUGE * -1),
    ("min_p", -0.01),
    ("presence_penalty", 2.5),
    ("frequency_penalty", math.inf),
    ("repetition_penalty", 0),
    ("repetition_penalty", math.inf),
    ("seed", 2**63),
    ("seed", HUGE),
    ("max_tokens", 0),
    ("min_tokens", -1),
    ("stop", [""]),
    ("stop", [1]),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", 5),
    ("logit_bias", {1: math.nan}),
    ("logit_bias", {1: math.inf}),
    ("logit_bias", {"a": 1}),
    ("allowed_token_ids", []),
    ("bad_words", [""]),
    ("logprobs", -2),
    ("skip_special_tokens", 1),
    ("best_of", 0),
    ("best_of", 2.0),
    ("use_beam_search", 1),
    ("length_penalty", "long"),
    ("early_stopping", "always"),
    ("early_stopping", 1),
    ("logprob_token_ids", "12"),
    ("logprob_token_ids", [-1]),
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_accepted(values: dict[str, Any]) -> None:
    params = SamplingParams(**values)
    for name, value in values.items():
        assert getattr(params, name) == value


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda part: str(part)[:20])
def test_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadRequest) as refused:
        SamplingParams(**{name: value})
    assert refused.value.parameter == name
    assert name in refused.value.message


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ({"temperature": 0, "n": 2}, "n"),
        ({"max_tokens": 3, "min_tokens": 4}, "min_tokens"),
        ({"stop": "x", "detokenize": False}, "stop"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"temperature": 0, "best_of": 2}, "best_of"),
        ({"length_penalty": 0.5}, "length_penalty"),
        ({"early_stopping": True}, "early_stopping"),
        ({"early_stopping": "never"}, "early_stopping"),
        ({"use_beam_search": True, "length_penalty": 50.5}, "length_penalty"),
        ({"use_beam_search": True, "length_penalty": math.nan}, "length_penalty"),
        ({"use_beam_search": True, "n": 3, "best_of": 2}, "best_of"),
        ({"use_beam_search": True, "logprobs": 1, "logprob_token_ids": [1]}, "logprob_token_ids"),
        ({"logprob_token_ids": [1]}, "logprob_token_ids"),
        ({"logprobs": 1, "logprob_token_ids": []}, "logprob_token_ids"),
        ({"logprobs": 1, "logprob_token_ids": [1] * 129}, "logprob_token_ids"),
    ],
)
def test_combinations_that_make_no_sense(values: dict[str, Any], parameter: str) -> None:
    with pytest.raises(BadRequest) as refused:
        SamplingParams(**values)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    ("values", "candidates"),
    [({"n": 3}, 3), ({"n": 2, "best_of": 5}, 5), ({"n": 2, "best_of": 4, "use_beam_search": True}, 4)],
)
def test_candidates(values: dict[str, Any], candidates: int) -> None:
    assert SamplingParams(**values).num_candidates == candidates
