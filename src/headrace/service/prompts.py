"""From what a caller asked to what the engine gets: prompt ids within the context, sampling without open ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest, ContextOverflow
from headrace.core.sampling import LOWEST_TEMPERATURE, SamplingParams, TokenSampling
from headrace.service.tokenization import required_tokenizer
from headrace.service.types import Generation
from headrace.text import Tokenizer

MOST_BIAS = 100.0
"""Biases beyond this, in either direction, act as this."""

STRONGEST_PENALTY = 1e20
"""Repetition penalties beyond this, or below its inverse, act as this; stronger ones overflow float32 logits."""

_BORDER_PIECES = 16
"""Cutting text may change how the words at the cut are tokenized; this many more pieces are kept to lie behind them."""


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """What of a `Generation` the engine gets."""

    prompt_ids: list[int]
    sampling: TokenSampling


class PromptPreparer:
    """Every check that needs no engine, and the resolution of what a caller left open. Any thread may call it.

    `tokenizer` None: prompts must be ids, and nothing may ask for text.
    `eos_token_ids` are all ids that end an answer; the tokenizer's own, or else the first of them, is *the* EOS, the
    others act as stop tokens. `max_new_tokens` applies where a caller sets no `max_tokens`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        max_model_len: int,
        limits: LimitsConfig,
        eos_token_ids: Sequence[int],
        max_new_tokens: int | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len
        self._limits = limits
        self._max_new_tokens = max_new_tokens
        own_eos = None if tokenizer is None else tokenizer.eos_token_id
        known_eos = [token for token in (own_eos, *eos_token_ids) if token is not None]
        self._eos_token_id = known_eos[0] if known_eos else None
        self._extra_eos = tuple(token for token in known_eos[1:] if token != self._eos_token_id and token < vocab_size)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All ids that end an answer, *the* EOS first."""
        return self._extra_eos if self._eos_token_id is None else (self._eos_token_id, *self._extra_eos)

    def prepare(self, call: Generation, seed: int, grammar: str | None = None) -> PreparedPrompt:
        """`seed` is for a call that brings none, `grammar` what its constraint was compiled to. Raises `BadRequest` or
        `ContextOverflow`, naming the parameter.
        """
        self._check(call.sampling)
        prompt_ids = self._prompt_ids(call)
        if not prompt_ids:
            raise BadRequest("The prompt must not be empty: it has no tokens.", parameter="prompt")
        self._check_vocabulary(prompt_ids, "prompt")
        self._check_room(len(prompt_ids))
        room = self._max_model_len - len(prompt_ids)
        return PreparedPrompt(prompt_ids, self._resolve(call.sampling, room, seed, grammar))

    def _check(self, sampling: SamplingParams) -> None:
        if sampling.detokenize:
            required_tokenizer(self._tokenizer, parameter="detokenize")
        limits = self._limits
        _at_most("n", sampling.n, limits.max_n_sequences, "choices")
        _at_most("best_of", sampling.num_candidates, limits.max_n_sequences, "candidates")
        if sampling.use_beam_search:
            self._check_width(sampling)
        _at_most("stop", len(sampling.stop_strings), limits.max_stop_strings, "stop strings")
        _at_most("bad_words", len(sampling.bad_words), limits.max_num_bad_words, "bad words")
        self._check_logprobs("sample", "logprobs", sampling.logprobs)
        self._check_logprobs("prompt", "prompt_logprobs", sampling.prompt_logprobs)
        self._check_vocabulary(sampling.stop_token_ids, "stop_token_ids")
        self._check_vocabulary(sampling.logit_bias, "logit_bias")
        self._check_vocabulary(sampling.allowed_token_ids or (), "allowed_token_ids")
        self._check_vocabulary(sampling.logprob_token_ids or (), "logprob_token_ids")
        if sampling.max_tokens is not None and sampling.max_tokens > self._max_model_len:
            raise ContextOverflow(
                f"max_tokens={sampling.max_tokens} cannot be greater than max_model_len={self._max_model_len}. "
                "Please request fewer output tokens.",
                parameter="max_tokens",
                value=sampling.max_tokens,
            )

    def _check_width(self, sampling: SamplingParams) -> None:
        """Each beam is continued by its best tokens, twice as many as there are beams."""
        limit = self._limits.max_logprobs
        width = sampling.num_candidates
        if limit != -1 and 2 * width > limit:
            name = "n" if sampling.best_of is None else "best_of"
            raise BadRequest(
                f"{name} must be at most {limit // 2} with use_beam_search, half of max_logprobs={limit}, got {width}.",
                parameter=name,
                value=width,
            )

    def _check_logprobs(self, kind: str, parameter: str, count: int | None) -> None:
        limit = self._limits.max_logprobs
        wanted = self._positions(count) or 0
        if limit != -1 and wanted > limit:
            raise BadRequest(
                f"Requested {kind} logprobs of {wanted}, which is greater than max allowed: {limit}",
                parameter=parameter,
                value=count,
            )

    def _positions(self, count: int | None) -> int | None:
        """How many alternatives a `logprobs` value means."""
        if count is None:
            return None
        return self._vocab_size if count == -1 else count

    def _check_vocabulary(self, ids: Iterable[int], parameter: str) -> None:
        low, high = min(ids, default=0), max(ids, default=0)
        if low >= 0 and high < self._vocab_size:
            return
        wrong = low if low < 0 else high
        raise BadRequest(f"Token id {wrong} is out of vocabulary", parameter=parameter, value=wrong)

    def _prompt_ids(self, call: Generation) -> list[int]:
        limit = self._truncation(call.truncate_prompt_tokens)
        if isinstance(call.prompt, str):
            tokenizer = required_tokenizer(self._tokenizer, parameter="prompt")
            text = self._bounded(call.prompt, tokenizer.max_piece_chars, limit, call.truncation_side)
            ids = tokenizer.encode(text, add_special_tokens=call.add_special_tokens)
        else:
            ids = list(call.prompt)
        if limit is None or len(ids) <= limit:
            return ids
        return ids[-limit:] if call.truncation_side == "left" else ids[:limit]

    def _truncation(self, asked: int | None) -> int | None:
        if asked is None:
            return None
        if asked == -1:
            return self._max_model_len - 1
        if not 1 <= asked <= self._max_model_len:
            raise BadRequest(
                f"truncate_prompt_tokens must be -1 or in [1, {self._max_model_len}], got {asked}.",
                parameter="truncate_prompt_tokens",
                value=asked,
            )
        return asked

    def _bounded(self, text: str, piece: int, limit: int | None, side: str) -> str:
        """The text, or as much of it as can matter. Raises `ContextOverflow`, without tokenizing, if it cannot fit.

        `piece` is the length of the longest token.
        """
        if limit is not None:
            most = (limit + _BORDER_PIECES) * piece
            return text if len(text) <= most else text[-most:] if side == "left" else text[:most]
        most = self._max_model_len * piece
        if len(text) > most:
            raise ContextOverflow(
                f"This model's maximum context length is {self._max_model_len} tokens. However, your prompt contains "
                f"{len(text)} characters, and no text of more than {most} characters can fit "
                f"(the longest token has {piece}). Please reduce the length of the input prompt.",
                parameter="input_text",
                value=len(text),
            )
        return text

    def _check_room(self, tokens: int) -> None:
        limit = self._max_model_len
        if tokens < limit:
            return
        if tokens == limit:
            excess = f"and with at least 1 requested output token it is longer than the maximum model length of {limit}"
        else:
            excess = "which exceeds this limit even without any output tokens"
        raise ContextOverflow(
            f"This model's maximum context length is {limit} tokens. However, your prompt contains {tokens} input "
            f"tokens, {excess}. Please reduce the length of the input prompt.",
            parameter="input_tokens",
            value=tokens,
        )

    def _resolve(self, sampling: SamplingParams, room: int, seed: int, grammar: str | None) -> TokenSampling:
        asked = self._max_new_tokens if sampling.max_tokens is None else sampling.max_tokens
        max_tokens = room if asked is None else min(asked, room)
        extra_eos = () if sampling.ignore_eos else self._extra_eos
        allowed = sampling.allowed_token_ids
        reported = sampling.logprob_token_ids
        logprobs = self._positions(sampling.logprobs)
        if logprobs is None and sampling.num_candidates > sampling.n and not sampling.use_beam_search:
            logprobs = 0  # which candidates are the best is seen from their logprobs
        resolved = TokenSampling(
            **self._distribution(sampling),
            seed=seed if sampling.seed in (None, -1) else sampling.seed,
            max_tokens=max_tokens,
            min_tokens=min(sampling.min_tokens, max_tokens),
            presence_penalty=float(sampling.presence_penalty),
            frequency_penalty=float(sampling.frequency_penalty),
            repetition_penalty=max(1 / STRONGEST_PENALTY, min(STRONGEST_PENALTY, float(sampling.repetition_penalty))),
            eos_token_id=self._eos_token_id,
            ignore_eos=sampling.ignore_eos,
            stop_token_ids=tuple(dict.fromkeys((*sampling.stop_token_ids, *extra_eos))),
            logit_bias=_clamped(sampling.logit_bias),
            allowed_token_ids=None if allowed is None else tuple(dict.fromkeys(allowed)),
            bad_words_ids=self._phrases(sampling.bad_words),
            logprobs=logprobs,
            prompt_logprobs=self._positions(sampling.prompt_logprobs),
            logprob_token_ids=None if reported is None else tuple(dict.fromkeys(reported)),
            grammar=grammar,
        )
        _check_choice_is_left(resolved)
        return resolved

    def _distribution(self, sampling: SamplingParams) -> dict[str, Any]:
        """Temperature and what cuts the distribution; greedy decoding needs none of it."""
        if sampling.greedy:
            return {"temperature": 0.0}
        return {
            "temperature": max(float(sampling.temperature), LOWEST_TEMPERATURE),
            "top_p": float(sampling.top_p),
            "top_k": sampling.top_k if 0 < sampling.top_k < self._vocab_size else 0,
            "min_p": float(sampling.min_p),
        }

    def _phrases(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Each word as it is tokenized at the start of a line and after a space."""
        if not words:
            return ()
        tokenizer = required_tokenizer(self._tokenizer, parameter="bad_words")
        phrases: dict[tuple[int, ...], None] = {}
        for word in words:
            bare = word.lstrip(" ") or word
            for form in (bare, " " + bare):
                ids = tuple(tokenizer.encode(form, add_special_tokens=False))
                if ids and max(ids) < self._vocab_size:
                    phrases[ids] = None
        return tuple(phrases)


def _at_most(parameter: str, count: int, limit: int, what: str) -> None:
    if count > limit:
        raise BadRequest(
            f"{parameter}: at most {limit} {what} are allowed, got {count}.", parameter=parameter, value=count
        )


def _check_choice_is_left(sampling: TokenSampling) -> None:
    """Raises `BadRequest` if not even the first token could be chosen."""
    if sampling.allowed_token_ids is None:
        return
    banned: set[int | None] = {phrase[0] for phrase in sampling.bad_words_ids if len(phrase) == 1}
    if sampling.min_tokens:
        banned.update(sampling.stop_token_ids)
        banned.add(sampling.eos_token_id)
    if banned.issuperset(sampling.allowed_token_ids):
        raise BadRequest(
            "allowed_token_ids leave no token to choose: bad_words and min_tokens ban all of them.",
            parameter="allowed_token_ids",
            value=list(sampling.allowed_token_ids),
        )


def _clamped(bias: Mapping[int, float]) -> dict[int, float]:
    return {token: max(-MOST_BIAS, min(MOST_BIAS, float(value))) for token, value in bias.items()}
