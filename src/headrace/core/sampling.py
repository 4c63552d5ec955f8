"""How the next token is chosen: what a caller may ask for, and what of it the engine acts on.

`SamplingParams` is the caller's view: texts and token ids mixed, defaults open. The service resolves it into a
`TokenSampling`, which speaks only of token ids; that is all the engine ever sees.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeGuard

from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams

GREEDY_BELOW = 1e-5
"""Temperatures below this mean greedy decoding."""

LOWEST_TEMPERATURE = 0.01
"""Positive temperatures below this act as this; dividing by less overflows float32 logits."""

STEEPEST_LENGTH_PENALTY = 50.0
"""Length penalties reach from minus this to this: the longest context to a higher power is beyond float64."""

MOST_LOGPROB_TOKEN_IDS = 128

EarlyStopping = bool | Literal["never"] | None
"""When a beam search ends before `max_tokens`; `BeamSearch` says what each value means."""

_INT64 = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """What a caller asks of a generation. Raises `BadRequest`, naming the field, if a value is out of range.

    `None` for `max_tokens` means "to the end of the context"; `seed` None or -1 means "a fresh one each time";
    `logprobs` and `prompt_logprobs` are the number of alternatives to report, -1 for the whole vocabulary.
    `logprob_token_ids`: report exactly these ids at each position instead of the best ones; needs `logprobs`.
    `top_k` 0 or -1 switches the rule off.

    `best_of`: draw that many choices and return the `n` whose tokens have the highest cumulative log-probability.
    With `use_beam_search` it is the width of the search, which else is `n`; the answers are then the `n` best beams,
    best first. A search looks at raw log-probabilities and ends beams at the model's end-of-sequence token alone:
    what else shapes sampling (temperature, penalties, biases, seed) or ends an answer (`stop`, `stop_token_ids`,
    `min_tokens`) has no effect on it. `length_penalty` and `early_stopping` are for it alone.

    `structured_outputs` is the form that every answer must have; a search cannot hold to one.
    """

    n: int = 1
    best_of: int | None = None
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
    logprob_token_ids: Sequence[int] | None = None
    use_beam_search: bool = False
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    structured_outputs: StructuredOutputsParams | None = None

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
        self._check_number_of_answers()
        self._check_logprob_token_ids()
        if self.structured_outputs is not None and self.use_beam_search:
            raise self.structured_outputs.refusal("not available with use_beam_search.")

    def _check_number_of_answers(self) -> None:
        if self.best_of is not None and self.best_of < self.n:
            raise BadRequest(
                f"best_of must be at least n={self.n}, got {self.best_of}.", parameter="best_of", value=self.best_of
            )
        if self.use_beam_search:
            _within("length_penalty", self.length_penalty, -STEEPEST_LENGTH_PENALTY, STEEPEST_LENGTH_PENALTY)
            return
        if self.length_penalty != 1.0:
            raise BadRequest(
                f"length_penalty needs use_beam_search: without it only 1.0 is allowed, got {self.length_penalty}.",
                parameter="length_penalty",
                value=self.length_penalty,
            )
        if self.early_stopping:
            raise BadRequest(
                f"early_stopping needs use_beam_search: without it only false is allowed, got {self.early_stopping!r}.",
                parameter="early_stopping",
                value=self.early_stopping,
            )
        for name, count in (("n", self.n), ("best_of", self.best_of or 1)):
            if self.greedy and count > 1:
                raise BadRequest(
                    f"{name} must be 1 when using greedy sampling, got {count}.", parameter=name, value=count
                )

    def _check_logprob_token_ids(self) -> None:
        if (ids := self.logprob_token_ids) is None:
            return
        name = "logprob_token_ids"
        if self.logprobs is None:
            raise BadRequest(f"{name} needs logprobs to be asked for.", parameter=name, value=list(ids))
        if not 1 <= len(ids) <= MOST_LOGPROB_TOKEN_IDS:
            raise BadRequest(
                f"{name} must have 1 to {MOST_LOGPROB_TOKEN_IDS} ids, got {len(ids)}.", parameter=name, value=len(ids)
            )
        if self.use_beam_search:
            raise BadRequest(f"{name} is not available with use_beam_search.", parameter=name, value=list(ids))

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def num_candidates(self) -> int:
        """Choices that are worked on, `n` of which are returned: the width of a beam search."""
        return self.n if self.best_of is None else self.best_of

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSampling:
    """The part of a `SamplingParams` that the engine acts on, resolved: no text, no open default.

    `seed` belongs to choice 0; choice c draws with `seed + c`. `max_tokens` is already cut to the room left in the
    context. `eos_token_id` ends a sequence unless `ignore_eos`; `stop_token_ids` always do.
    `bad_words_ids` are token phrases: when the output ends with all but the last id of one, its last id is banned.
    `logprob_token_ids`, where given, are reported at each position in place of the `logprobs` best.
    `grammar`, in llguidance's notation, is what the whole output must follow.
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
    logprob_token_ids: tuple[int, ...] | None = None
    grammar: str | None = None

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


_INTS = {"n", "best_of", "top_k", "min_tokens", "seed", "max_tokens", "logprobs", "prompt_logprobs"}
_FLOATS = {
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "length_penalty",
}
_BOOLS = {
    "include_stop_str_in_output",
    "ignore_eos",
    "detokenize",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "use_beam_search",
}
_NULLABLE = {
    "best_of",
    "early_stopping",
    "seed",
    "max_tokens",
    "logprobs",
    "prompt_logprobs",
    "allowed_token_ids",
    "logprob_token_ids",
    "structured_outputs",
}
_STRINGS = {"bad_words", "stop"}
_TOKEN_LISTS = {"stop_token_ids", "allowed_token_ids", "logprob_token_ids"}


def _check_type(name: str, value: object) -> None:
    if value is None and name in _NULLABLE:
        return
    if name in _INTS and not _is_int(value):
        _wrong_type(name, "an integer", value)
    elif name in _FLOATS and not _is_number(value):
        _wrong_type(name, "a number", value)
    elif name in _BOOLS and not isinstance(value, bool):
        _wrong_type(name, "true or false", value)
    elif name in _STRINGS and not _is_list_of(value, str) and not (name == "stop" and isinstance(value, str)):
        _wrong_type(name, "a list of strings", value)
    elif name in _TOKEN_LISTS and not _is_list_of_ids(value):
        _wrong_type(name, "a list of token ids", value)
    elif name == "early_stopping" and not (isinstance(value, bool) or value == "never"):
        _wrong_type(name, 'true, false, "never" or null', value)
    elif name == "structured_outputs" and not isinstance(value, StructuredOutputsParams):
        _wrong_type(name, "a StructuredOutputsParams", value)
    elif name == "logit_bias" and not (isinstance(value, Mapping) and all(map(_is_bias, value.items()))):
        _wrong_type(name, "a map of token ids to finite numbers", value)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    """A float, or an integer that one can hold."""
    return isinstance(value, float) or (_is_int(value) and abs(value) <= sys.float_info.max)


def _is_list_of(value: object, kind: type) -> TypeGuard[Sequence[Any]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
    )


def _is_bias(entry: tuple[object, object]) -> bool:
    token, bias = entry
    return _is_int(token) and isinstance(bias, int | float) and abs(bias) <= sys.float_info.max


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
