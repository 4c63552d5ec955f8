"""Sampling parameters as families send them that name them as `SamplingParams` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import StrictInt

from headrace.api.structured import CONSTRAINT_NAMES, ConstraintFields

FROM_GENERATION_CONFIG = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
"""What a model's generation config decides where a request is silent."""


class SamplingFields(ConstraintFields):
    """Every field of `SamplingParams`, by its own name. Absent and null are both "not given"."""

    n: int | None = None
    best_of: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    logprobs: StrictInt | None = None
    prompt_logprobs: StrictInt | None = None
    logprob_token_ids: list[int] | None = None
    detokenize: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    use_beam_search: bool | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None

    def given(self) -> dict[str, Any]:
        """The values that were sent, for `SamplingParams`."""
        given = self.model_dump(include=set(SamplingFields.model_fields) - CONSTRAINT_NAMES, exclude_none=True)
        constraint = self.constraint()
        return given if constraint is None else given | {"structured_outputs": constraint}


def with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, and from the generation config what it leaves open."""
    known = {name: defaults[name] for name in FROM_GENERATION_CONFIG if defaults.get(name) is not None}
    return {**known, **given}
