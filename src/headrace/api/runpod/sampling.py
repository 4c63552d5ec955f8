"""A job's `sampling_params`: the documented names, and those that clients commonly send beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from headrace.api.structured import CONSTRAINT_NAMES, ConstraintFields
from headrace.core.errors import BadRequest
from headrace.core.sampling import SamplingParams
from headrace.core.structured import StructuredOutputsParams

SAMPLING_NAMES = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "n",
        "best_of",
        "repetition_penalty",
        "min_p",
        "min_tokens",
        "use_beam_search",
        "length_penalty",
        "early_stopping",
        "stop_token_ids",
        "ignore_eos",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "seed",
        "logprobs",
        "logit_bias",
        "bad_words",
        "allowed_token_ids",
        "include_stop_str_in_output",
        *CONSTRAINT_NAMES,
    }
)
"""Names that mean in a job what they mean in a `SamplingParams`."""

TRUNCATION = "truncate_prompt_tokens"
"""Named among the sampling parameters by the guide, though it concerns the prompt."""

_WITHOUT_SAMPLING = {"temperature": (0,), "top_p": (1,), "top_k": (-1, 0)}


def read_sampling(values: Mapping[str, Any], *, max_tokens: int) -> SamplingParams:
    """The documented defaults hold, not those of the model; `max_tokens` is the one for a job that brings none.

    A null counts as not given. Raises `BadRequest`, naming the parameter.
    """
    given = {name: value for name, value in values.items() if value is not None and name != TRUNCATION}
    for name in given:
        if name not in SAMPLING_NAMES:
            raise BadRequest(f"sampling_params has no parameter {name!r}.", parameter=name)
    if "logit_bias" in given:
        given["logit_bias"] = _bias_by_id(given["logit_bias"])
    if (constraint := _constraint({name: given.pop(name) for name in CONSTRAINT_NAMES & given.keys()})) is not None:
        given["structured_outputs"] = constraint
    sampling = SamplingParams(**{"max_tokens": max_tokens, **given})
    if sampling.use_beam_search:
        _check_beam_search(sampling, given)
    return sampling


def _constraint(given: Mapping[str, Any]) -> StructuredOutputsParams | None:
    try:
        return ConstraintFields.model_validate(given).constraint()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        raise BadRequest(f"{name}: {first['msg']}.", parameter=name) from None


def _check_beam_search(sampling: SamplingParams, given: Mapping[str, Any]) -> None:
    """A search has no use for what shapes sampling; as in the guide's generation of vLLM, that is said."""
    if sampling.num_candidates < 2:
        raise BadRequest("use_beam_search needs a best_of (or n) of at least 2.", parameter="best_of")
    for name, neutral in _WITHOUT_SAMPLING.items():
        if given.get(name, neutral[0]) not in neutral:
            raise BadRequest(
                f"{name} must be {neutral[0]} with use_beam_search, got {given[name]}.",
                parameter=name,
                value=given[name],
            )


def _bias_by_id(bias: Any) -> Any:
    """JSON has only texts for keys. What is no such object is left for `SamplingParams` to refuse."""
    if not isinstance(bias, Mapping):
        return bias
    try:
        return {int(token): value for token, value in bias.items()}
    except ValueError:
        raise BadRequest("logit_bias must map token ids to numbers.", parameter="logit_bias", value=bias) from None
