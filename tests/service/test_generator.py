"""Life of a generation: admission, several at once, leaving early, failing, and what the observer hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from scripted_client import Ledger, Scripted, ScriptedEngine, call, collect, logprobs_of, run

from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest, EngineDead, EngineError, Overloaded
from headrace.core.request import FinishReason, SequenceOutput
from headrace.core.sampling import SamplingParams
from headrace.service import Generator
from headrace.text import Tokenizer

MakeGenerator = Callable[..., Generator]
PARAMS = SamplingParams(max_tokens=8)
IDS = [504, 3575, 282, 4649]


def test_two_generations_may_share_a_request_id(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine()
        engine.script = Scripted([IDS])
        generator = make_generator(engine)
        streams = [await generator.start(call(IDS, PARAMS, request_id="same")) for _ in range(2)]
        for stream in streams:
            (answer,) = await collect(stream)
            assert answer.token_ids == IDS
        assert len({request.request_id for request in engine.requests}) == 2
        assert all("same" in request.request_id for request in engine.requests)

    run(work())


def test_what_the_engine_gets(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine()
        engine.script = Scripted([IDS])
        params = SamplingParams(n=3, max_tokens=8)
        stream = await make_generator(engine).start(call(IDS, params, priority=-2, cache_salt="salt"))
        await collect(stream)
        (request,) = engine.requests
        assert (request.n, request.priority, request.cache_salt) == (3, -2, "salt")
        assert request.arrival_time > 0
        assert stream.prompt_ids == IDS
        assert stream.cached_tokens == 3

    run(work())


def test_unseeded_calls_draw_from_the_servers_seed(make_generator: MakeGenerator) -> None:
    async def seeds(server_seed: int) -> list[int]:
        engine = ScriptedEngine()
        engine.script = Scripted([IDS])
        generator = make_generator(engine, seed=server_seed)
        for stream in await generator.start_all([call(IDS, PARAMS) for _ in range(5)]):
            await collect(stream)
        return [request.sampling.seed for request in engine.requests]

    first = run(seeds(1))
    assert len(set(first)) == 5
    assert run(seeds(1)) == first
    assert run(seeds(2)) != first


def test_queue_limits(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        engine.script = Scripted([IDS])
        ledger = Ledger()
        limits = LimitsConfig(max_num_queued_reqs=3, max_num_queued_tokens=10)
        generator = make_generator(engine, limits=limits, metrics=ledger)
        waiting = await generator.start(call(IDS, SamplingParams(n=2, max_tokens=8)))
        with pytest.raises(Overloaded, match="max_num_queued_reqs=3"):
            await generator.start(call(IDS, SamplingParams(n=2, max_tokens=8)))
        with pytest.raises(Overloaded, match="max_num_queued_tokens=10"):
            await generator.start(call(IDS * 2, PARAMS))
        also_waiting = await generator.start(call(IDS, PARAMS))
        assert ledger.rejected == ["max_num_queued_reqs", "max_num_queued_tokens"]
        engine.release()
        await collect(waiting)
        await collect(also_waiting)
        await collect(await generator.start(call(IDS * 2, PARAMS)))

    run(work())


def test_leaving_early_gives_the_place_in_the_queue_back(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        generator = make_generator(engine, limits=LimitsConfig(max_num_queued_reqs=1))
        async with await generator.start(call(IDS, PARAMS)):
            with pytest.raises(Overloaded):
                await generator.start(call(IDS, PARAMS))
        async with await generator.start(call(IDS, PARAMS)):
            pass
        assert [choice for _, choice in engine.aborted] == [None, None]

    run(work())


def test_all_prompts_or_none(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        generator = make_generator(engine, limits=LimitsConfig(max_num_queued_reqs=2, max_completion_prompts=4))
        with pytest.raises(Overloaded):
            await generator.start_all([call(IDS, PARAMS)] * 3)
        with pytest.raises(BadRequest, match="at most 4 prompts"):
            await generator.start_all([call(IDS, PARAMS)] * 5)
        with pytest.raises(BadRequest, match="out of vocabulary"):
            await generator.start_all([call(IDS, PARAMS), call([10**6], PARAMS)])
        assert engine.requests == []
        for stream in await generator.start_all([call(IDS, PARAMS)] * 2):
            stream.close()

    run(work())


def test_leaving_aborts_what_runs(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine()
        engine.script = Scripted([IDS])
        ledger = Ledger()
        generator = make_generator(engine, metrics=ledger)
        async with await generator.start(call(IDS, PARAMS)) as stream:
            async for delta in stream:
                assert delta.token_ids == IDS[:1]
                break
        assert engine.aborted == [(engine.requests[0].request_id, None)]
        (record,) = ledger.finished
        assert record.finish_reasons == (FinishReason.ABORT,)
        assert record.generation_tokens == (1,)

    run(work())


def test_cancelled_reader_aborts(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        generator = make_generator(engine)
        reader = asyncio.create_task(collect(await generator.start(call(IDS, PARAMS))))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert len(engine.aborted) == 1

    run(work())


@pytest.mark.parametrize(("refused", "kind"), [(False, EngineError), (True, BadRequest)])
def test_engine_failure_on_one_request(make_generator: MakeGenerator, refused: bool, kind: type[Exception]) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        ledger = Ledger()
        stream = await make_generator(engine, metrics=ledger).start(call(IDS, PARAMS))
        request_id = engine.requests[0].request_id
        failure = SequenceOutput(
            request_id, 0, finish_reason=FinishReason.ERROR, error="no token left", refused=refused
        )
        engine.streams[request_id].deliver(failure)
        with pytest.raises(kind, match="no token left"):
            await collect(stream)
        assert ledger.finished[0].finish_reasons == (FinishReason.ERROR,)

    run(work())


def test_engine_death(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        ledger = Ledger()
        limits = LimitsConfig(max_num_queued_reqs=1)
        generator = make_generator(engine, metrics=ledger, limits=limits)
        stream = await generator.start(call(IDS, PARAMS))
        engine.streams[engine.requests[0].request_id].fail(EngineDead("gone"))
        with pytest.raises(EngineDead, match="gone"):
            await collect(stream)
        assert ledger.finished[0].finish_reasons == (FinishReason.ERROR,)
        await engine.stop()
        with pytest.raises(EngineDead):
            await generator.start(call(IDS, PARAMS))
        assert len(ledger.finished) == 1
        with pytest.raises(EngineDead):  # its place in the queue was given back: it is not Overloaded
            await generator.start(call(IDS, PARAMS))

    run(work())


def test_observer_hears_each_request_once(make_generator: MakeGenerator, tokenizer: Tokenizer) -> None:
    async def work() -> None:
        engine = ScriptedEngine()
        engine.script = Scripted([tokenizer.encode("one two three"), tokenizer.encode("four five")])
        ledger = Ledger()
        stream = await make_generator(engine, metrics=ledger).start(call(IDS, SamplingParams(n=2, max_tokens=9)))
        await collect(stream)
        (record,) = ledger.finished
        assert (record.n, record.max_tokens) == (2, 9)
        assert (record.prompt_tokens, record.cached_tokens) == (4, 3)
        assert record.generation_tokens == (3, 2)
        assert record.finish_reasons == (FinishReason.LENGTH, FinishReason.LENGTH)
        assert len(ledger.first_tokens) == 1
        assert sum(tokens for _, tokens in ledger.inter_tokens) == 3
        assert record.queue == 0.0
        durations = (record.prefill, record.decode, record.inference)
        assert all(duration is not None and 0 <= duration <= record.e2e for duration in durations)
        assert record.time_per_output_token == record.decode / 2

    run(work())


def test_logprobs_have_text(make_generator: MakeGenerator, tokenizer: Tokenizer) -> None:
    async def work() -> None:
        engine = ScriptedEngine()
        ids = tokenizer.encode(" 🧑")
        assert len(ids) == 3
        engine.script = Scripted([ids])
        prompt = tokenizer.encode("Hello there 🧑")
        params = SamplingParams(max_tokens=8, logprobs=2, prompt_logprobs=1)
        async with await make_generator(engine).start(call(prompt, params)) as stream:
            first = await anext(stream)
            assert stream.prompt_logprobs is not None
            chosen = ["" if entry is None else entry.chosen.text for entry in stream.prompt_logprobs]
            assert stream.prompt_logprobs[0] is None
            assert chosen[1:] == [" there", "", "", " 🧑"]
            positions = list(first.logprobs)
            async for delta in stream:
                positions += delta.logprobs
        assert [position.chosen.token_id for position in positions] == ids
        assert [position.chosen.text for position in positions] == ["", "", " 🧑"]
        assert [(top.token_id, top.rank) for top in positions[0].top] == [(100, 1), (101, 2)]
        assert positions[0].top[0].text == tokenizer.token_text(100, [])

    run(work())


def test_prompt_logprobs_in_chunks_are_complete_with_the_first_delta(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        engine = ScriptedEngine(hold=True)
        params = SamplingParams(max_tokens=1, prompt_logprobs=0)
        stream = await make_generator(engine).start(call(IDS, params))
        request_id = engine.requests[0].request_id
        source = engine.streams[request_id]
        reader = asyncio.create_task(anext(stream))
        for chunk in (IDS[1:3], IDS[3:]):
            source.deliver(SequenceOutput(request_id, 0, prompt_logprobs=[logprobs_of(token, 0) for token in chunk]))
            await asyncio.sleep(0)
        assert not reader.done()
        source.deliver(SequenceOutput(request_id, 0, [7], finish_reason=FinishReason.LENGTH))
        await reader
        assert stream.prompt_logprobs is not None
        assert [entry and entry.chosen.token_id for entry in stream.prompt_logprobs] == [None, *IDS[1:]]
        stream.close()

    run(work())


def test_tokenize_and_detokenize(make_generator: MakeGenerator) -> None:
    async def work() -> None:
        generator = make_generator(ScriptedEngine())
        ids = await generator.tokenize("Hello <|im_end|>", add_special_tokens=True)
        assert await generator.detokenize(ids) == "Hello <|im_end|>"
        assert await generator.detokenize([*ids, 10**6]) == "Hello <|im_end|>"
        assert await generator.detokenize([]) == ""
        with pytest.raises(BadRequest, match="-4"):
            await generator.detokenize([1, -4])

    run(work())
