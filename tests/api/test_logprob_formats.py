"""The three forms of log-probabilities, on hand-made positions."""

from __future__ import annotations

from headrace.api.logprobs import chat_logprobs, prompt_logprobs
from headrace.api.openai.logprobs import CompletionLogprobsWriter
from headrace.service import PositionLogprobs, TokenChoice

INFINITE = float("-inf")


def position(chosen: tuple[int, str, float, int], *top: tuple[int, str, float]) -> PositionLogprobs:
    ranked = [TokenChoice(token, text, logprob, rank) for rank, (token, text, logprob) in enumerate(top, start=1)]
    return PositionLogprobs(TokenChoice(*chosen), ranked)


BEST = position((1, " a", -0.1, 1), (1, " a", -0.1), (2, " b", -2.0), (3, " c", -3.0))
THIRD = position((3, " c", -3.0, 3), (1, " a", -0.1), (2, " b", -2.0))


def completion_top(of: PositionLogprobs, count: int) -> list[tuple[str, float]]:
    (top,) = CompletionLogprobsWriter(count, as_ids=False).write([of]).top_logprobs
    return list(top.items())


def test_completion_shows_the_chosen_token_first_and_then_the_best():
    assert completion_top(BEST, 2) == [(" a", -0.1), (" b", -2.0)]
    assert completion_top(THIRD, 2) == [(" c", -3.0), (" a", -0.1), (" b", -2.0)]
    assert completion_top(BEST, 0) == [(" a", -0.1)]
    assert completion_top(BEST, -1) == [(" a", -0.1), (" b", -2.0), (" c", -3.0)]


def test_completion_tokens_of_the_same_text_collide_and_the_later_wins():
    assert completion_top(position((1, "", -0.1, 1), (1, "", -0.1), (2, "", -2.0)), 2) == [("", -2.0)]


def test_completion_offsets_run_on():
    writer = CompletionLogprobsWriter(0, as_ids=False)
    first = writer.write([BEST], first_of_prompt=(9, "xyz"))
    assert (first.text_offset, first.token_logprobs, first.top_logprobs[0]) == ([0, 3], [None, -0.1], None)
    assert writer.write([BEST, THIRD]).text_offset == [5, 7]


def test_minus_infinity_is_a_number():
    impossible = position((3, " c", INFINITE, 3), (1, " a", -0.1), (2, " b", INFINITE))
    piece = CompletionLogprobsWriter(2, as_ids=False).write([impossible])
    assert piece.token_logprobs == [-9999.0]
    assert piece.top_logprobs == [{" c": -9999.0, " a": -0.1, " b": -9999.0}]
    (entry,) = chat_logprobs([impossible], 3, as_ids=False).content
    assert [entry.logprob, *(token.logprob for token in entry.top_logprobs)] == [-9999.0, -9999.0, -0.1, -9999.0]
    assert prompt_logprobs([impossible], 1)[0]["3"].logprob == -9999.0


def chat_top(of: PositionLogprobs, count: int) -> list[str]:
    return [token.token for token in chat_logprobs([of], count, as_ids=False).content[0].top_logprobs]


def test_chat_shows_exactly_as_many_as_asked_for():
    assert chat_top(BEST, 2) == [" a", " b"]
    assert chat_top(THIRD, 2) == [" c", " a"]
    assert chat_top(THIRD, 0) == []
    assert chat_top(BEST, -1) == [" a", " b", " c"]


def test_chat_bytes_are_those_of_the_text():
    (entry,) = chat_logprobs([position((7, "é", -1.0, 1))], 0, as_ids=False).content
    assert entry.bytes == [0xC3, 0xA9]


def test_prompt_logprobs_are_by_id_and_always_hold_the_actual_token():
    first, second = prompt_logprobs([None, THIRD], 1)
    assert first is None
    assert {token: (entry.rank, entry.decoded_token) for token, entry in second.items()} == {
        "3": (3, " c"),
        "1": (1, " a"),
    }
