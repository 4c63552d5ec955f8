"""Answers that are chosen at the end: beam searches, and the best of several candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from scripted_client import Scripted, ScriptedEngine, call, collect, run

from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest, EngineDead, EngineError, Overloaded
from headrace.core.request import BeamSearch, FinishReason, SequenceOutput, TokenLogprobs
from headrace.core.sampling import SamplingParams
from headrace.runtime import RequestStream
from headrace.service import Beam, Delta, Generation, GenerationStream, Generator
from headrace.text import Tokenizer

MakeGenerator = Callable[..., Generator]
PROMPT = [504, 3575, 282, 4649]
EOS = 2


class Conversation:
    """A stream of a generator, and the engine's side of it."""

    def __init__(self, engine: ScriptedEngine, stream: GenerationStream) -> None:
        self.engine = engine
        self.stream = stream
        (self.request,) = engine.requests
        self._source: RequestStream = engine.streams[self.request.request_id]

    def say(self, choice: int = 0, **facts: object) -> None:
        self._source.deliver(SequenceOutput(self.request.request_id, choice, **facts))

    def answer(self, choice: int, ids: list[int], *, cost: float, finished: bool = False) -> None:
        reason = FinishReason.STOP if finished else FinishReason.LENGTH
        stop_reason = ids[-1] if finished else None
        self.say(choice, token_ids=ids, finish_reason=reason, stop_reason=stop_reason, cumulative_logprob=cost)

    def die(self) -> None:
        self._source.fail(EngineDead("The engine process is gone."))


async def start(make_generator: MakeGenerator, wanted: Generation, **options: object) -> Conversation:
    engine = ScriptedEngine(hold=True)
    generator = make_generator(engine, **options)
    return Conversation(engine, await generator.start(wanted))


def beams(n: int = 2, **changes: object) -> SamplingParams:
    return SamplingParams(**{"n": n, "use_beam_search": True, "temperature": 0, "max_tokens": 8, **changes})


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


# ---- beam search


def test_what_the_engine_gets_of_a_search(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        sampling = beams(2, best_of=3, length_penalty=2, early_stopping="never", stop="x", logprobs=4)
        talk = await start(make_generator, call(PROMPT, sampling, show_beams=True))
        assert talk.request.n == 2
        assert talk.request.beam == BeamSearch(width=3, length_penalty=2.0, early_stopping="never", shown=True)
        assert talk.request.sampling.logprobs == 4
        plain = await start(make_generator, call(PROMPT, beams(2, best_of=3)))
        assert plain.request.beam == BeamSearch(width=3, early_stopping=False)
        assert plain.request.sampling.logprobs is None
        for stream in (talk.stream, plain.stream):
            stream.close()

    run(work())


@pytest.mark.parametrize("kept", [False, True])
def test_answers_of_a_search(make_generator: MakeGenerator, tokenizer: Tokenizer, kept: bool) -> None:
    paris, lyon = ids_of(tokenizer, " Paris."), ids_of(tokenizer, " Lyon, Paris.")

    async def work() -> None:
        sampling = beams(include_stop_str_in_output=kept, logprobs=0, stop="Paris", min_tokens=3)
        talk = await start(make_generator, call(PROMPT, sampling))
        talk.say(cached_tokens=3, scheduled_time=1.0)
        entries = [TokenLogprobs(token, -1.0, 1, [], []) for token in [*paris, EOS]]
        talk.say(
            0,
            token_ids=[*paris, EOS],
            logprobs=entries,
            finish_reason=FinishReason.STOP,
            stop_reason=EOS,
            cumulative_logprob=-3.0,
        )
        talk.answer(1, lyon, cost=-9.0)
        first, second = [delta async for delta in talk.stream]
        ids = [*paris, EOS] if kept else paris
        assert first.text == " Paris."
        assert (first.choice, first.token_ids, len(first.logprobs)) == (0, ids, len(ids))
        assert (first.finish_reason, first.stop_reason) == (FinishReason.STOP, EOS)
        assert first.cumulative_logprob == -3.0
        assert second == Delta(1, " Lyon, Paris.", lyon, [], FinishReason.LENGTH, None, -9.0)
        assert talk.stream.cached_tokens == 3

    run(work())


def test_beams_are_shown_until_the_answers_come(make_generator: MakeGenerator, tokenizer: Tokenizer) -> None:
    paris, lyon = ids_of(tokenizer, " Paris is"), ids_of(tokenizer, " Lyon is")

    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, beams(), show_beams=True))
        async with talk.stream as stream:
            shown = stream.beams()
            talk.say(cached_tokens=0, scheduled_time=1.0)
            talk.say(beams=[paris[:1], lyon[:1]])
            assert await anext(shown) == [Beam(" Paris", paris[:1]), Beam(" Lyon", lyon[:1])]
            talk.say(beams=[lyon[:1], paris])
            talk.say(beams=[lyon, paris])  # the reader was too slow for the one before
            assert [beam.text for beam in await anext(shown)] == [" Lyon is", " Paris is"]
            talk.answer(0, lyon, cost=-1.0)
            talk.answer(1, paris, cost=-2.0)
            assert [beam async for beam in shown] == []
            assert [(delta.choice, delta.text) async for delta in stream] == [(0, " Lyon is"), (1, " Paris is")]

    run(work())


def test_who_does_not_look_at_beams_gets_the_answers(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, beams(1), show_beams=True))
        talk.say(beams=[[504]])
        talk.answer(0, [504, 505], cost=-1.0)
        (answer,) = await collect(talk.stream)
        assert answer.token_ids == [504, 505]

    run(work())


def test_other_generations_show_no_beams(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine()
        engine.script = Scripted([[504, 505]])
        stream = await make_generator(engine).start(call(PROMPT, SamplingParams(max_tokens=8), show_beams=True))
        async with stream:
            assert [beam async for beam in stream.beams()] == []
            assert [token async for delta in stream for token in delta.token_ids] == [504, 505]

    run(work())


def test_beams_without_text(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, beams(1, detokenize=False), show_beams=True))
        async with talk.stream as stream:
            talk.say(beams=[[504]])
            assert await anext(stream.beams()) == [Beam("", [504])]

    run(work())


def test_failures_reach_who_looks_at_beams(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        failed = await start(make_generator, call(PROMPT, beams(), show_beams=True))
        failed.say(1, finish_reason=FinishReason.ERROR, error="out of memory")
        with pytest.raises(EngineError, match="out of memory"):
            await anext(failed.stream.beams())
        gone = await start(make_generator, call(PROMPT, beams(), show_beams=True))
        gone.die()
        with pytest.raises(EngineDead):
            await anext(gone.stream.beams())

    run(work())


def test_leaving_ends_a_search(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, beams(), show_beams=True))
        async with talk.stream as stream:
            talk.say(beams=[[504], [505]])
            await anext(stream.beams())
        assert talk.engine.aborted == [(talk.request.request_id, None)]

    run(work())


@pytest.mark.parametrize("sampling", [beams(2), SamplingParams(n=2, best_of=3, max_tokens=8)])
def test_aborted_answers_are_told_once(make_generator: MakeGenerator, sampling: SamplingParams) -> None:
    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, sampling))
        reader = asyncio.create_task(collect(talk.stream))
        await asyncio.sleep(0)
        talk.stream.abort()
        answers = await reader
        assert [answer.finish_reason for answer in answers] == [FinishReason.ABORT] * 2
        assert talk.engine.aborted == [(talk.request.request_id, None)]

    run(work())


def test_a_search_leaves_the_queue_when_it_begins(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        generator = make_generator(engine, limits=LimitsConfig(max_num_queued_reqs=4))
        stream = await generator.start(call(PROMPT, beams(2, best_of=4)))
        with pytest.raises(Overloaded):
            await generator.start(call(PROMPT, SamplingParams(max_tokens=8)))
        talk = Conversation(engine, stream)
        talk.say(cached_tokens=0, scheduled_time=1.0)
        talk.say(beams=[[504], [505]])
        await anext(stream.beams())
        (await generator.start(call(PROMPT, SamplingParams(n=4, max_tokens=8)))).close()
        stream.close()

    run(work())


@pytest.mark.parametrize(
    ("sampling", "parameter"),
    [(beams(11), "n"), (beams(2, best_of=11), "best_of"), (SamplingParams(best_of=5), "best_of")],
)
def test_limits_on_candidates(make_generator: MakeGenerator, sampling: SamplingParams, parameter: str) -> None:
    async def work() -> None:
        generator = make_generator(ScriptedEngine(), limits=LimitsConfig(max_n_sequences=12 if parameter == "n" else 4))
        with pytest.raises(BadRequest, match=f"{parameter}.*at most") as refused:
            await generator.start(call(PROMPT, sampling))
        assert refused.value.parameter == parameter

    run(work())


def test_without_a_limit_on_logprobs_there_is_none_on_beams(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, beams(30)), limits=LimitsConfig(max_logprobs=-1))
        assert talk.request.beam.width == 30
        talk.stream.close()

    run(work())


# ---- best_of


def candidate(ids: list[int], *logprobs: float) -> dict:
    return {"token_ids": ids, "logprobs": [TokenLogprobs(i, p, 1, [], []) for i, p in zip(ids, logprobs, strict=True)]}


def test_the_likeliest_candidates_are_returned(make_generator: MakeGenerator, tokenizer: Tokenizer) -> None:
    paris, lyon, nice = (ids_of(tokenizer, text) for text in (" Paris is", " Lyon is", " Nice"))

    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, SamplingParams(n=2, best_of=3, max_tokens=8)))
        assert (talk.request.n, talk.request.beam, talk.request.sampling.logprobs) == (3, None, 0)
        talk.say(0, **candidate(paris[:1], -2.0))
        talk.say(1, **candidate(lyon, -0.5, -0.25), finish_reason=FinishReason.LENGTH)
        talk.say(0, **candidate(paris[1:], -0.25), finish_reason=FinishReason.LENGTH)
        talk.say(2, **candidate([*nice, EOS], *[-0.5] * len(nice), -1.0), finish_reason=FinishReason.STOP)
        first, second = [delta async for delta in talk.stream]
        assert first == Delta(0, " Lyon is", lyon, [], FinishReason.LENGTH, None, -0.75)
        assert second == Delta(1, " Nice", [*nice, EOS], [], FinishReason.STOP, None, -0.5 * len(nice) - 1.0)

    run(work())


def test_logprobs_of_the_best_are_told_where_asked_for(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, SamplingParams(best_of=2, max_tokens=8, logprobs=0)))
        for choice, logprob in enumerate((-3.0, -1.0)):
            talk.say(choice, **candidate([600 + choice], logprob), finish_reason=FinishReason.LENGTH)
        (delta,) = [delta async for delta in talk.stream]
        assert [position.chosen.logprob for position in delta.logprobs] == [-1.0]

    run(work())


def test_equals_keep_their_order_and_stop_strings_cut(make_generator: MakeGenerator, tokenizer: Tokenizer) -> None:
    ids = ids_of(tokenizer, " one, two")

    async def work() -> None:
        talk = await start(make_generator, call(PROMPT, SamplingParams(best_of=2, max_tokens=8, stop=",")))
        talk.say(1, **candidate(ids[:1], -1.0), finish_reason=FinishReason.LENGTH)
        talk.say(0, **candidate(ids, -0.5, -0.5, -7.0))  # what comes after the stop string does not count
        (delta,) = [delta async for delta in talk.stream]
        assert (delta.text, delta.token_ids, delta.stop_reason) == (" one", ids[:2], ",")
        assert delta.cumulative_logprob == -1.0

    run(work())


def test_best_of_as_many_as_are_returned_streams(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        sampling = SamplingParams(n=2, best_of=2, max_tokens=8)
        talk = await start(make_generator, call(PROMPT, sampling))
        assert talk.request.sampling.logprobs is None
        talk.say(0, token_ids=[600])
        assert (await anext(talk.stream)).token_ids == [600]
        talk.stream.close()

    run(work())


# ---- logprob_token_ids


def test_certain_tokens_are_reported_with_their_ranks(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        sampling = SamplingParams(max_tokens=8, logprobs=0, logprob_token_ids=[7, 5, 7])
        talk = await start(make_generator, call(PROMPT, sampling))
        assert talk.request.sampling.logprob_token_ids == (7, 5)
        entry = TokenLogprobs(600, -1.0, 3, [7, 5], [-2.0, -9.0], [12, 4000])
        talk.say(0, token_ids=[600], logprobs=[entry], finish_reason=FinishReason.LENGTH)
        (delta,) = [delta async for delta in talk.stream]
        assert [(choice.token_id, choice.logprob, choice.rank) for choice in delta.logprobs[0].top] == [
            (7, -2.0, 12),
            (5, -9.0, 4000),
        ]

    run(work())


def test_certain_tokens_must_be_in_the_vocabulary(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        sampling = SamplingParams(logprobs=0, logprob_token_ids=[10**6])
        with pytest.raises(BadRequest, match="out of vocabulary") as refused:
            await make_generator(ScriptedEngine()).start(call(PROMPT, sampling))
        assert refused.value.parameter == "logprob_token_ids"

    run(work())
