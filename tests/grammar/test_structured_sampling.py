"""From grammars to tokens: masks of a step, and what the sampler makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headrace.core.sampling import TokenSampling
from headrace.core.structured import StructuredOutputsParams
from headrace.engine.grammar_masks import GrammarMasks
from headrace.engine.sampler import Sampler
from headrace.grammar.compiler import GrammarCompiler
from headrace.grammar.masks import MaskedRow, MaskFiller
from headrace.grammar.state import GrammarReader, GrammarState
from headrace.schedule.plan import PlanRow, TokenHistory
from headrace.text import Tokenizer

VOCAB_SIZE = 49152
EOS = 2


@pytest.fixture
def begin(compiler: GrammarCompiler, reader: GrammarReader, tokenizer: Tokenizer):
    """`begin("text", regex=…)`: the state of an answer that has this text."""

    def state(text: str = "", **fields: object) -> GrammarState:
        found = reader.read(compiler.compile(StructuredOutputsParams(**fields)))
        assert all(found.advance(token) for token in tokenizer.encode(text, add_special_tokens=False))
        return found

    return state


@pytest.fixture(scope="module")
def filler() -> MaskFiller:
    return MaskFiller(VOCAB_SIZE, threads=2)


def row(state: GrammarState | None, **changes: object) -> PlanRow:
    sampling = TokenSampling(**{"temperature": 0.0, "seed": 0, "max_tokens": 9, "eos_token_id": EOS, **changes})
    return PlanRow(
        request_id="r",
        choice=0,
        token_ids=[5],
        start=0,
        block_table=[0],
        sampling=sampling,
        samples=True,
        output_index=0,
        history=TokenHistory([5], []) if sampling.reads_output else None,
        grammar=state,
    )


def sampled(rows: list[PlanRow], seed: int = 0, logits: torch.Tensor | None = None):
    if logits is None:
        logits = torch.randn(len(rows), VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
    filling = GrammarMasks(VOCAB_SIZE).start(rows)
    masks = None if filling is None else filling.result()
    return Sampler(VOCAB_SIZE, torch.device("cpu")).sample(logits, rows, masks)


def test_masks_say_what_may_follow(begin, filler: MaskFiller, tokenizer: Tokenizer) -> None:
    states = [begin(regex="[0-9]+"), begin("12", regex="[0-9]+"), begin("yes", choice=["yes"])]
    rows = [MaskedRow(at, state, runs_on=False) for at, state in zip((0, 2, 5), states, strict=True)]
    masks = filler.start(rows).result()
    assert masks.rows == [0, 2, 5]
    assert masks.allowed.shape == (3, VOCAB_SIZE)
    digits = {tokenizer.encode(str(digit), add_special_tokens=False)[0] for digit in range(10)}
    assert set(np.flatnonzero(masks.allowed[0])) == digits
    assert set(np.flatnonzero(masks.allowed[1])) == digits | {EOS}
    assert set(np.flatnonzero(masks.allowed[2])) == {EOS}
    assert masks.complete == [5]
    assert not masks.errors
    assert masks.seconds > 0


def test_an_answer_that_is_to_run_on_may_not_end_before_it_must(begin, filler: MaskFiller) -> None:
    states = [begin("12", regex="[0-9]+"), begin("yes", choice=["yes"]), begin("12", regex="[0-9]+")]
    rows = [MaskedRow(at, state, runs_on=at < 2) for at, state in enumerate(states)]
    allowed = filler.start(rows).result().allowed
    assert allowed[:, EOS].tolist() == [False, True, True]


def test_a_state_that_fails_is_named_and_the_others_are_not(begin, filler: MaskFiller) -> None:
    broken = begin(choice=["yes"])
    assert not broken.advance(EOS)
    masks = filler.start([MaskedRow(0, broken, False), MaskedRow(1, begin(choice=["yes"]), False)]).result()
    assert list(masks.errors) == [0]
    assert masks.complete == []
    assert masks.allowed[1].any()


@pytest.mark.parametrize("vocab_size", [1000, 49152, 49280])
def test_the_model_may_have_fewer_or_more_outputs_than_the_tokenizer_tokens(vocabulary, vocab_size: int) -> None:
    grammar = GrammarCompiler(vocabulary, vocab_size).compile(StructuredOutputsParams(regex="(?s:.)*"))
    state = GrammarReader(vocabulary, vocab_size).read(grammar)
    masks = MaskFiller(vocab_size, threads=1).start([MaskedRow(0, state, runs_on=False)]).result()
    assert masks.allowed.shape == (1, vocab_size)
    assert masks.allowed[0, :VOCAB_SIZE].sum() > 0.9 * min(vocab_size, VOCAB_SIZE)
    assert not masks.allowed[0, VOCAB_SIZE:].any()


def test_no_grammar_no_work() -> None:
    masks = GrammarMasks(VOCAB_SIZE)
    assert masks.start([row(None), row(None)]) is None


def test_only_allowed_tokens_are_drawn(begin) -> None:
    for seed in range(5):
        rows = [row(begin(regex="[0-9]{3}"), temperature=1.0, seed=seed), row(None, temperature=1.0, seed=seed)]
        constrained, free = sampled(rows, seed)
        assert begin(regex="[0-9]{3}").advance(constrained.token_id)
        assert free == sampled([row(None, temperature=1.0, seed=seed)] * 2, seed)[1]


def test_raw_logprobs_are_taken_after_the_mask_and_before_the_rules(begin) -> None:
    state = begin(choice=["yes", "no"])
    rows = [row(state, logprobs=4), row(state.fork(), logprobs=4, logit_bias={10407: 50.0})]
    plain, biased = sampled(rows)
    assert biased.token_id == 10407  # "yes"
    for result in (plain, biased):
        allowed = [value for value in result.logprobs.top_logprobs if value > -math.inf]
        assert len(allowed) == 4
        assert 0.5 < sum(map(math.exp, allowed)) <= 1.0001  # of five tokens, the best four
    assert plain.logprobs.logprob > -3


@pytest.mark.parametrize(
    "changes",
    [
        {"min_tokens": 5},
        {"logit_bias": {EOS: -100.0}},
        {"allowed_token_ids": (7,)},
        {"bad_words_ids": ((EOS,),)},
        {"stop_token_ids": (EOS,), "min_tokens": 2, "ignore_eos": True},
        {"repetition_penalty": 2.0, "temperature": 1.0},
    ],
)
def test_a_complete_answer_can_only_end(begin, changes: dict) -> None:
    (result,) = sampled([row(begin("yes", choice=["yes"]), logprobs=0, **changes)])
    assert result.token_id == EOS
    assert result.logprobs.logprob == 0.0


def test_rules_that_leave_nothing_name_themselves(begin) -> None:
    rows = [row(begin(choice=["yes"]), allowed_token_ids=(7,)), row(begin(choice=["yes"]))]
    contradiction, fine = sampled(rows)
    assert "all that the grammar allows" in contradiction.error
    assert contradiction.refused
    assert fine.error is None


def test_a_row_whose_grammar_fails_fails_alone(begin) -> None:
    broken = begin(choice=["yes"])
    broken.advance(EOS)
    failed, fine = sampled([row(broken), row(begin(choice=["yes"]))])
    assert failed.error.startswith("The answer's grammar cannot be followed: ")
    assert failed.refused
    assert fine.error is None


def test_a_fork_goes_its_own_way(begin, tokenizer: Tokenizer) -> None:
    first = begin("ye", choice=["yes", "yellow"])
    second = first.fork()
    (letter,) = tokenizer.encode("s", add_special_tokens=False)
    assert first.advance(letter)
    assert first.advance(EOS)
    assert (first.ended, second.ended) == (True, False)
    assert not second.advance(EOS)
    assert first.problem is None
