"""From ids to text: stop strings, unfinished characters, stop tokens, several choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from scripted_client import Answer, Scripted, ScriptedEngine, call, collect, run

from headrace.core.request import FinishReason
from headrace.core.sampling import SamplingParams
from headrace.service import Generator
from headrace.text import Tokenizer

MakeGenerator = Callable[..., Generator]
EOS = 2
PROMPT = [504, 3575]


def one_at_a_time(ids: list[int]) -> list[list[int]]:
    return [[token] for token in ids]


def all_at_once(ids: list[int]) -> list[list[int]]:
    return [ids]


@pytest.fixture
def answer(make_generator: MakeGenerator) -> Callable[..., Answer]:
    """What a caller hears when the engine says `ids`."""

    def ask(
        ids: Sequence[int],
        *,
        stop_token: bool = False,
        stop_reason: int | None = None,
        steps: Callable[[list[int]], list[list[int]]] = one_at_a_time,
        **sampling: object,
    ) -> Answer:
        async def work() -> Answer:
            engine = ScriptedEngine()
            engine.script = Scripted([ids], stop=stop_token, stop_reason=stop_reason, steps=steps)
            generator = make_generator(engine)
            params = SamplingParams(**{"max_tokens": 40, **sampling})
            (only,) = await collect(await generator.start(call(PROMPT, params)))
            return only

        return run(work())

    return ask


def test_text_is_the_decoded_ids(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" Paris, and that is all.")
    said = answer(ids)
    assert said.text == " Paris, and that is all."
    assert said.token_ids == ids
    assert said.finish_reason is FinishReason.LENGTH
    assert said.stop_reason is None


def test_stop_string_across_tokens_leaks_nothing(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two three four five")
    said = answer(ids, stop=["ree fo"])
    assert said.text == "one two th"
    assert said.finish_reason is FinishReason.STOP
    assert said.stop_reason == "ree fo"
    shown = ""
    for delta in said.deltas:
        shown += delta.text
        assert "one two th".startswith(shown)


@pytest.mark.parametrize("steps", [one_at_a_time, all_at_once])
def test_ids_end_with_the_token_that_completes_the_stop_string(
    answer: Callable[..., Answer], tokenizer: Tokenizer, steps: Callable[[list[int]], list[list[int]]]
) -> None:
    ids = tokenizer.encode("one two three four five")
    said = answer(ids, stop="three", steps=steps)
    assert tokenizer.decode(said.token_ids) == "one two three"
    assert sum(len(delta.token_ids) for delta in said.deltas) == len(said.token_ids) < len(ids)


def test_stop_string_is_shown_where_asked(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    said = answer(tokenizer.encode("one two three four"), stop=["two th"], include_stop_str_in_output=True)
    assert said.text == "one two th"


def test_stop_string_completed_by_the_last_token_reports_stop(
    answer: Callable[..., Answer], tokenizer: Tokenizer
) -> None:
    said = answer(tokenizer.encode("one two three"), stop=["three"])
    assert (said.text, said.finish_reason, said.stop_reason) == ("one two ", FinishReason.STOP, "three")


def test_held_back_text_is_flushed_at_the_end(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    said = answer(tokenizer.encode("it ends in thr"), stop=["three"])
    assert (said.text, said.finish_reason) == ("it ends in thr", FinishReason.LENGTH)


def test_stop_string_within_min_tokens_is_not_noticed(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two three two four")
    within = len(tokenizer.encode("one two"))
    said = answer(ids, stop=["two"], min_tokens=within)
    assert said.text == "one two three "
    assert said.stop_reason == "two"
    assert answer(ids, stop=["one"], min_tokens=1).finish_reason is FinishReason.LENGTH


def test_stop_string_that_begins_within_min_tokens_counts(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    said = answer(tokenizer.encode("one two three"), stop=["two th"], min_tokens=2)
    assert (said.text, said.stop_reason) == ("one ", "two th")


@pytest.mark.parametrize("steps", [one_at_a_time, all_at_once])
def test_eos_has_no_text_but_is_counted(
    answer: Callable[..., Answer], tokenizer: Tokenizer, steps: Callable[[list[int]], list[list[int]]]
) -> None:
    ids = [*tokenizer.encode("the end"), EOS]
    said = answer(ids, stop_token=True, steps=steps, skip_special_tokens=False)
    assert (said.text, said.token_ids, said.finish_reason) == ("the end", ids, FinishReason.STOP)


def test_stop_token_text_is_shown_where_asked(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("red green blue")
    options = {"stop_token": True, "stop_reason": ids[-1], "stop_token_ids": [ids[-1]]}
    assert answer(ids, **options).text == "red green"
    said = answer(ids, **options, include_stop_str_in_output=True)
    assert (said.text, said.stop_reason) == ("red green blue", ids[-1])


def test_characters_are_never_split(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    text = "naïve 🙂 日本語 🧑‍🚀"
    said = answer(tokenizer.encode(text))
    assert said.text == text
    assert not any("\N{REPLACEMENT CHARACTER}" in delta.text for delta in said.deltas)


def test_unfinished_character_is_dropped_and_its_ids_kept(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ok 🧑")[:-1]
    said = answer(ids)
    assert said.text == "ok "
    assert said.token_ids == ids


def test_without_detokenize_there_is_no_text(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("not shown")
    said = answer(ids, detokenize=False, logprobs=1)
    assert (said.text, said.token_ids) == ("", ids)
    assert said.deltas[0].logprobs[0].chosen.text == ""


def test_outputs_that_arrive_together_are_one_delta(answer: Callable[..., Answer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two three")
    assert len(answer(ids, steps=all_at_once).deltas) == 1
    assert len(answer(ids).deltas) == len(ids)


def test_choices_are_kept_apart(make_generator: MakeGenerator, tokenizer: Tokenizer) -> None:
    async def work() -> list[Answer]:
        engine = ScriptedEngine()
        engine.script = Scripted([tokenizer.encode("first choice"), tokenizer.encode("second of them")])
        params = SamplingParams(n=2, max_tokens=20, stop=[" of"])
        stream = await make_generator(engine).start(call(PROMPT, params))
        answers = await collect(stream)
        assert stream.completion_tokens == [len(answer.token_ids) for answer in answers]
        assert engine.aborted == [(engine.requests[0].request_id, 1)]
        return answers

    first, second = run(work())
    assert (first.text, first.finish_reason) == ("first choice", FinishReason.LENGTH)
    assert (second.text, second.finish_reason) == ("second", FinishReason.STOP)
