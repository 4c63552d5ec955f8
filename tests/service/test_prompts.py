"""What a call becomes for the engine, and what is refused before it gets there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted_client import VOCABULARY

from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest, ContextOverflow
from headrace.core.sampling import SamplingParams
from headrace.service import Generation
from headrace.service.prompts import PreparedPrompt, PromptPreparer
from headrace.text import Tokenizer

CONTEXT = 64
Prepare = Callable[..., PreparedPrompt]


@pytest.fixture
def prepare(tokenizer: Tokenizer) -> Prepare:
    def make(
        prompt: str | list[int] = "Hello", *, drawn_seed: int = 7, preparer: Any = None, **options: Any
    ) -> PreparedPrompt:
        names = ("add_special_tokens", "truncate_prompt_tokens", "truncation_side")
        call_options = {name: options.pop(name) for name in names if name in options}
        settings = {
            "limits": LimitsConfig(max_num_bad_words=3, max_stop_strings=2, max_n_sequences=4),
            "max_model_len": CONTEXT,
            "eos_token_ids": (2, 0, 60000),
            "max_new_tokens": None,
            **(preparer or {}),
        }
        sampling = SamplingParams(**options)
        call = Generation(prompt=prompt, sampling=sampling, request_id="r", **call_options)
        return PromptPreparer(tokenizer, vocab_size=VOCABULARY, **settings).prepare(call, drawn_seed)

    return make


def refusal(prepare: Prepare, **options: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        prepare(**options)
    return caught.value


def test_text_is_tokenized_and_ids_are_taken_as_they_are(prepare: Prepare, tokenizer: Tokenizer) -> None:
    assert prepare("Hello world").prompt_ids == tokenizer.encode("Hello world")
    assert prepare([5, 6, 7]).prompt_ids == [5, 6, 7]


@pytest.mark.parametrize("prompt", ["", []])
def test_empty_prompt_is_refused(prepare: Prepare, prompt: str | list[int]) -> None:
    assert refusal(prepare, prompt=prompt).parameter == "prompt"


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"prompt": [1, 999999]}, 999999),
        ({"prompt": [1, -3]}, -3),
        ({"stop_token_ids": [VOCABULARY]}, VOCABULARY),
        ({"logit_bias": {50000: 1.0}}, 50000),
        ({"allowed_token_ids": [1, 70000]}, 70000),
    ],
)
def test_ids_must_be_in_the_vocabulary(prepare: Prepare, options: dict[str, Any], wrong: int) -> None:
    error = refusal(prepare, **options)
    assert error.message == f"Token id {wrong} is out of vocabulary"
    assert error.parameter == next(iter(options))


def test_prompt_longer_than_the_context(prepare: Prepare) -> None:
    error = refusal(prepare, prompt=[5] * (CONTEXT + 1))
    assert isinstance(error, ContextOverflow)
    assert error.message == (
        "This model's maximum context length is 64 tokens. However, your prompt contains 65 input tokens, which "
        "exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
    )
    assert (error.parameter, error.value) == ("input_tokens", 65)


def test_prompt_as_long_as_the_context_leaves_no_room(prepare: Prepare) -> None:
    error = refusal(prepare, prompt=[5] * CONTEXT)
    assert "maximum context length is 64 tokens" in error.message
    assert "at least 1 requested output token" in error.message
    assert "longer than the maximum model length" in error.message


def test_far_too_many_characters(prepare: Prepare, tokenizer: Tokenizer) -> None:
    """The message speaks of characters: there was no need to tokenize."""
    most = CONTEXT * tokenizer.max_piece_chars
    with pytest.raises(
        ContextOverflow, match=rf"context length is 64 tokens.* {most + 1} characters.* {most} "
    ) as caught:
        prepare("x" * (most + 1))
    assert caught.value.parameter == "input_text"
    with pytest.raises(ContextOverflow, match="input tokens"):
        prepare("x" * most)


@pytest.mark.parametrize(("side", "kept"), [("left", slice(-5, None)), ("right", slice(0, 5))])
@pytest.mark.parametrize("repeats", [4, 20000])
def test_truncation(prepare: Prepare, tokenizer: Tokenizer, side: str, kept: slice, repeats: int) -> None:
    """Also of a text of which most is never tokenized."""
    text = "The quick brown fox jumps over the lazy dog. " * repeats + "The end."
    whole = tokenizer.encode(text)
    cut = prepare(text, truncate_prompt_tokens=5, truncation_side=side).prompt_ids
    assert cut == whole[kept]
    assert prepare(list(range(9)), truncate_prompt_tokens=5, truncation_side=side).prompt_ids == list(range(9))[kept]


def test_truncation_to_the_model_limit_leaves_room_for_one(prepare: Prepare) -> None:
    prepared = prepare("word " * 500, truncate_prompt_tokens=-1)
    assert len(prepared.prompt_ids) == CONTEXT - 1
    assert prepared.sampling.max_tokens == 1


@pytest.mark.parametrize("length", [0, -2, CONTEXT + 1])
def test_truncation_out_of_range(prepare: Prepare, length: int) -> None:
    assert refusal(prepare, truncate_prompt_tokens=length).parameter == "truncate_prompt_tokens"


def test_max_tokens_is_cut_to_the_room_left(prepare: Prepare) -> None:
    assert prepare([5] * 60, max_tokens=10).sampling.max_tokens == 4
    assert prepare([5] * 60, max_tokens=3).sampling.max_tokens == 3
    assert prepare([5] * 60, max_tokens=None).sampling.max_tokens == 4
    assert prepare([5] * 10, max_tokens=None, preparer={"max_new_tokens": 20}).sampling.max_tokens == 20
    assert prepare([5] * 60, max_tokens=None, preparer={"max_new_tokens": 20}).sampling.max_tokens == 4
    assert prepare([5] * 60, max_tokens=10, min_tokens=8).sampling.min_tokens == 4


def test_max_tokens_beyond_the_context_is_refused(prepare: Prepare) -> None:
    error = refusal(prepare, max_tokens=600)
    assert (
        error.message == "max_tokens=600 cannot be greater than max_model_len=64. Please request fewer output tokens."
    )
    assert (error.parameter, error.value) == ("max_tokens", 600)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logprobs": 21}, "Requested sample logprobs of 21, which is greater than max allowed: 20"),
        ({"prompt_logprobs": 21}, "Requested prompt logprobs of 21, which is greater than max allowed: 20"),
        ({"logprobs": -1}, f"Requested sample logprobs of {VOCABULARY}, which is greater than max allowed: 20"),
        ({"n": 5}, "n: at most 4 choices are allowed, got 5."),
        ({"stop": ["a", "b", "c"]}, "stop: at most 2 stop strings are allowed, got 3."),
        ({"bad_words": ["a", "b", "c", "d"]}, "bad_words: at most 3 bad words are allowed, got 4."),
    ],
)
def test_limits(prepare: Prepare, options: dict[str, Any], message: str) -> None:
    error = refusal(prepare, **options)
    assert error.message == message
    assert error.parameter == next(iter(options))


def test_whole_vocabulary_where_it_is_allowed(prepare: Prepare) -> None:
    sampling = prepare(logprobs=-1, preparer={"limits": LimitsConfig(max_logprobs=-1)}).sampling
    assert sampling.logprobs == VOCABULARY
    assert prepare(logprobs=0).sampling.logprobs == 0


def test_end_tokens(prepare: Prepare) -> None:
    """The tokenizer's EOS, the model's other ones as stop tokens, none that the model does not have."""
    sampling = prepare(stop_token_ids=[9, 9]).sampling
    assert (sampling.eos_token_id, sampling.stop_token_ids) == (2, (9, 0))
    ignoring = prepare(stop_token_ids=[9], ignore_eos=True).sampling
    assert (ignoring.ignore_eos, ignoring.stop_token_ids) == (True, (9,))


def test_bad_words_are_banned_with_and_without_a_space(prepare: Prepare, tokenizer: Tokenizer) -> None:
    phrases = prepare(bad_words=["cat", " New York"]).sampling.bad_words_ids
    spoken = {tokenizer.decode(phrase) for phrase in phrases}
    assert spoken == {"cat", " cat", "New York", " New York"}


def test_logit_bias_is_clamped(prepare: Prepare) -> None:
    assert prepare(logit_bias={1: 500.0, 2: -101, 3: 1.5}).sampling.logit_bias == {1: 100.0, 2: -100.0, 3: 1.5}


@pytest.mark.parametrize(("asked", "used"), [(1e-320, 1e-20), (0.5, 0.5), (1e300, 1e20)])
def test_repetition_penalties_that_would_overflow_are_clamped(prepare: Prepare, asked: float, used: float) -> None:
    assert prepare(repetition_penalty=asked).sampling.repetition_penalty == used


@pytest.mark.parametrize(
    "bans", [{"min_tokens": 2, "stop_token_ids": [9]}, {"min_tokens": 1, "stop_token_ids": [9], "ignore_eos": True}]
)
def test_allowed_tokens_that_are_all_banned_are_refused(prepare: Prepare, bans: dict[str, Any]) -> None:
    error = refusal(prepare, allowed_token_ids=[2, 9], **bans)
    assert error.parameter == "allowed_token_ids"
    assert "bad_words and min_tokens" in error.message
    prepare(allowed_token_ids=[2, 9], **{**bans, "min_tokens": 0})
    prepare(allowed_token_ids=[2, 9, 10], **bans)


def test_allowed_tokens_that_are_all_bad_words_are_refused(prepare: Prepare, tokenizer: Tokenizer) -> None:
    (cat,) = tokenizer.encode(" cat")
    assert refusal(prepare, allowed_token_ids=[cat], bad_words=["cat"]).parameter == "allowed_token_ids"
    prepare(allowed_token_ids=[cat, 5], bad_words=["cat"])


@pytest.mark.parametrize(("asked", "used"), [(None, 7), (-1, 7), (0, 0), (-5, -5), (123, 123)])
def test_a_call_without_seed_takes_the_one_drawn_for_it(prepare: Prepare, asked: int | None, used: int) -> None:
    assert prepare(drawn_seed=7, seed=asked).sampling.seed == used


def test_distribution(prepare: Prepare) -> None:
    greedy = prepare(temperature=0, top_p=0.5, top_k=3, min_p=0.1).sampling
    assert (greedy.temperature, greedy.top_p, greedy.top_k, greedy.min_p) == (0.0, 1.0, 0, 0.0)
    assert prepare(temperature=0.001).sampling.temperature == 0.01
    assert prepare(top_k=-1).sampling.top_k == 0
    assert prepare(top_k=VOCABULARY).sampling.top_k == 0
    assert prepare(top_k=40, top_p=0.9).sampling.top_k == 40
