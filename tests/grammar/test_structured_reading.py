"""Requests whose grammars are being read in the engine: they come back able to run, or are told why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from headrace.core.errors import BadRequest
from headrace.core.request import FinishReason, Request, SequenceOutput
from headrace.core.sampling import TokenSampling
from headrace.core.structured import StructuredOutputsParams
from headrace.core.vocabulary import Vocabulary
from headrace.engine.grammar_reading import GrammarReading, ReadRequest
from headrace.grammar.compiler import GrammarCompiler
from headrace.grammar.state import GrammarReader

VOCAB_SIZE = 49152


@pytest.fixture
def grammar(compiler: GrammarCompiler) -> str:
    return compiler.compile(StructuredOutputsParams(choice=["yes", "no"]))


@pytest.fixture
def reading(vocabulary: Vocabulary) -> GrammarReading:
    found = GrammarReading(VOCAB_SIZE)
    found.learn(vocabulary)
    return found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is read before it is set."""
    let_go = threading.Event()
    read = GrammarReader.read

    def wait_and_read(reader: GrammarReader, grammar: str) -> object:
        assert let_go.wait(60)
        return read(reader, grammar)

    monkeypatch.setattr(GrammarReader, "read", wait_and_read)
    yield let_go
    let_go.set()


def request(request_id: str, grammar: str, n: int = 1) -> Request:
    sampling = TokenSampling(temperature=0.0, seed=0, max_tokens=5, eos_token_id=2, grammar=grammar)
    return Request(request_id=request_id, prompt_ids=[5], sampling=sampling, n=n)


def all_of(reading: GrammarReading) -> tuple[list[ReadRequest], list[SequenceOutput]]:
    ready, failed = [], []
    deadline = time.monotonic() + 60
    while reading:
        assert time.monotonic() < deadline
        more_ready, more_failed = reading.take(0.05)
        ready += more_ready
        failed += more_failed
    return ready, failed


def test_each_request_gets_a_state_of_its_own(reading: GrammarReading, grammar: str) -> None:
    for name in ("a", "b"):
        reading.add(request(name, grammar))
    ready, failed = all_of(reading)
    assert sorted(one.request.request_id for one in ready) == ["a", "b"]
    assert not failed
    first, second = (one.state for one in ready)
    assert first.matcher is not second.matcher
    assert first.advance(10407)
    assert second.matcher.validate_tokens([10407]) == 1


def test_a_matcher_that_has_been_used_begins_anew(reader: GrammarReader, grammar: str) -> None:
    fresh = reader.read(grammar).matcher.compute_bitmask()
    for tokens in ([10407, 2], [105], []):  # ended, in the middle, not begun
        state = reader.read(grammar)
        assert all(state.advance(token) for token in tokens)
        matcher = state.matcher
        state.release()
        again = reader.read(grammar)
        assert again.matcher is matcher
        assert not again.ended
        assert again.problem is None
        assert again.matcher.compute_bitmask() == fresh
    other = reader.read(grammar)
    assert other.matcher is not again.matcher


def test_a_matcher_that_has_failed_is_not_used_again(reader: GrammarReader, grammar: str) -> None:
    state = reader.read(grammar)
    assert not state.advance(2)
    state.release()
    assert reader.read(grammar).matcher is not state.matcher


def test_without_a_vocabulary_nothing_can_be_read(grammar: str) -> None:
    with pytest.raises(BadRequest, match="has not been told the vocabulary"):
        GrammarReading(VOCAB_SIZE).add(request("a", grammar))


def test_a_grammar_that_cannot_be_read_fails_its_request_alone(reading: GrammarReading, grammar: str) -> None:
    reading.add(request("bad", "start: nowhere", n=2))
    reading.add(request("good", grammar))
    ready, failed = all_of(reading)
    assert [one.request.request_id for one in ready] == ["good"]
    assert [(one.request_id, one.choice, one.finish_reason) for one in failed] == [
        ("bad", 0, FinishReason.ERROR),
        ("bad", 1, FinishReason.ERROR),
    ]
    assert "unknown name" in (failed[0].error or "")


def test_taking_does_not_wait_where_there_is_other_work(
    reading: GrammarReading, grammar: str, held: threading.Event
) -> None:
    reading.add(request("a", grammar))
    began = time.monotonic()
    assert reading.take(0) == ([], [])
    assert time.monotonic() - began < 1
    assert "a" in reading
    held.set()
    assert len(all_of(reading)[0]) == 1


def test_requests_and_choices_can_be_aborted_meanwhile(
    reading: GrammarReading, grammar: str, held: threading.Event
) -> None:
    reading.add(request("whole", grammar, n=2))
    reading.add(request("part", grammar, n=3))
    outputs = reading.abort("whole", None)
    assert [(one.choice, one.finish_reason) for one in outputs] == [(0, FinishReason.ABORT), (1, FinishReason.ABORT)]
    assert "whole" not in reading
    assert len(reading.abort("part", 1)) == 1
    assert reading.abort("part", 1) == []
    held.set()
    (one,), failed = all_of(reading)
    assert (one.request.request_id, one.aborted) == ("part", [1])
    assert not failed
