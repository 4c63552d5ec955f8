"""How the next token is chosen: what a caller may ask for, and what of it the engine acts on.

`SamplingParams` is the caller's view: texts and token ids mixed, defaults open. The service resolves it into a
`TokenSampling`, which speaks only of token ids; that is all the engine ever sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeGuard

from headrace.core.errors import BadRequest

GREEDY_BELOW = 1e-5
"""Temperatures below this mean greedy decoding."""

LOWEST_TEMPERATURE = 0.01
"""Positive temperatures below this act as this; dividing by less overflows float32 logits."""

_INT64 = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """What a caller asks of a generation. Raises `BadRequest`, naming the field, if a value is out of range.

    `None` for `max_tokens` means "to the end of the context"; `seed` None or -1 means "a fresh one each time";
    `logprobs` and `prompt_logprobs` are the number of alternatives to report, -1 for the whole vocabulary.
    `top_k` 0 or -1 switches the rule off.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True

    def __post_init__(self) -> None:
        for known in fields(self):
            _check_type(known.name, getattr(self, known.name))
        _within("n", self.n, 1, None)
        _within("temperature", self.temperature, 0.0, 2.0)
        _within("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _within("top_k", self.top_k, -1, None)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("repetition_penalty", self.repetition_penalty, 0.0, None, low_open=True)
        _within("min_tokens", self.min_tokens, 0, None)
        if self.seed is not None:
            _within("seed", self.seed, -_INT64, _INT64 - 1)
        if self.max_tokens is not None:
            _within("max_tokens", self.max_tokens, 1, None)
            if self.min_tokens > self.max_tokens:
                raise BadRequest(
                    f"min_tokens must not exceed max_tokens={self.max_tokens}, got {self.min_tokens}.",
                    parameter="min_tokens",
                    value=self.min_tokens,
                )
        for name in ("logprobs", "prompt_logprobs"):
            if (count := getattr(self, name)) is not None:
                _within(name, count, -1, None)
        if any(not text for text in self.stop_strings):
            raise BadRequest("stop must not contain an empty string.", parameter="stop", value=list(self.stop_strings))
        if any(not word for word in self.bad_words):
            raise BadRequest("bad_words must not contain an empty string.", parameter="bad_words")
        if self.stop_strings and not self.detokenize:
            raise BadRequest("stop needs detokenize to be true.", parameter="stop", value=list(self.stop_strings))
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise BadRequest("allowed_token_ids must not be empty.", parameter="allowed_token_ids", value=[])
        if self.greedy and self.n > 1:
            raise BadRequest(f"n must be 1 when using greedy sampling, got {self.n}.", parameter="n", value=self.n)

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSampling:
    """The part of a `SamplingParams` that the engine acts on, resolved: no text, no open default.

    `seed` belongs to choice 0; choice c draws with `seed + c`. `max_tokens` is already cut to the room left in the
    context. `eos_token_id` ends a sequence unless `ignore_eos`; `stop_token_ids` always do.
    `bad_words_ids` are token phrases: when the output ends with all but the last id of one, its last id is banned.
    """

    temperature: float
    seed: int
    max_tokens: int
    min_tokens: int = 0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    eos_token_id: int | None = None
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: dict[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def reads_output(self) -> bool:
        """Whether a rule looks at the tokens generated so far."""
        return (
            self.reads_prompt or self.presence_penalty != 0 or self.frequency_penalty != 0 or bool(self.bad_words_ids)
        )

    @property
    def reads_prompt(self) -> bool:
        """Whether a rule looks at the prompt's tokens."""
        return self.repetition_penalty != 1.0


_INTS = {"n", "top_k", "min_tokens", "seed", "max_tokens", "logprobs", "prompt_logprobs"}
_FLOATS = {
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
}
_BOOLS = {
    "include_stop_str_in_output",
    "ignore_eos",
    "detokenize",
    "skip_special_tokens",
    "spaces_between_special_tokens",
}
_NULLABLE = {"seed", "max_tokens", "logprobs", "prompt_logprobs", "allowed_token_ids"}
_STRINGS = {"bad_words", "stop"}
_TOKEN_LISTS = {"stop_token_ids", "allowed_token_ids"}


def _check_type(name: str, value: object) -> None:
    if value is None and name in _NULLABLE:
        return
    if name in _INTS and not _is_int(value):
        _wrong_type(name, "an integer", value)
    elif name in _FLOATS and not (_is_int(value) or isinstance(value, float)):
        _wrong_type(name, "a number", value)
    elif name in _BOOLS and not isinstance(value, bool):
        _wrong_type(name, "true or false", value)
    elif name in _STRINGS and not _is_list_of(value, str) and not (name == "stop" and isinstance(value, str)):
        _wrong_type(name, "a list of strings", value)
    elif name in _TOKEN_LISTS and not _is_list_of_ids(value):
        _wrong_type(name, "a list of token ids", value)
    elif name == "logit_bias" and not (isinstance(value, Mapping) and all(map(_is_bias, value.items()))):
        _wrong_type(name, "a map of token ids to finite numbers", value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(value: object, kind: type) -> TypeGuard[Sequence[Any]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
    )


def _is_bias(entry: tuple[object, object]) -> bool:
    token, bias = entry
    return _is_int(token) and isinstance(bias, int | float) and -math.inf < bias < math.inf


def _is_list_of_ids(value: object) -> bool:
    return _is_list_of(value, int) and all(token >= 0 for token in value)


def _wrong_type(name: str, wanted: str, value: object) -> None:
    raise BadRequest(f"{name} must be {wanted}, got {value!r}.", parameter=name, value=value)


def _within(name: str, value: float, low: float, high: float | None, *, low_open: bool = False) -> None:
    too_low = value <= low if low_open else value < low
    if too_low or not -math.inf < value < math.inf or (high is not None and value > high):
        if high is None:
            bounds = f"{'greater than' if low_open else 'at least'} {low:g}"
        else:
            bounds = f"in {'(' if low_open else '['}{low:g}, {high:g}]"
        raise BadRequest(f"{name} must be {bounds}, got {value}.", parameter=name, value=value)
