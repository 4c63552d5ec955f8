"""What a job emits: both formats of output, whole and in chunks, and how it fails. The engine is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from headrace.api.runpod.executor import job_executor
from headrace.config.sections import ApiConfig, ServeConfig
from headrace.core.errors import BadRequest, EngineDead, EngineError, NotFound
from headrace.jobs.types import Job, JobPolicy, JobStatus
from headrace.runtime.client import EngineState

JOB = Job(
    id="job-1",
    endpoint="default",
    owner="",
    status=JobStatus.IN_PROGRESS,
    policy=JobPolicy(),
    webhook=None,
    submitted_at=0,
    started_at=0,
    finished_at=None,
    attempt=1,
    retries=0,
    worker_id="w0",
    error=None,
    delivered=0,
    chunk_count=0,
)
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def run(app) -> Callable[..., list[Any]]:
    """Run a job to its end; returns the chunks as a reader sees them."""

    def run(meanwhile: Callable[[], None] | None = None, **given: Any) -> list[Any]:
        chunks: list[Any] = []

        async def emit(chunk: Any) -> None:
            chunks.append(msgspec.json.decode(msgspec.json.encode(chunk)))

        async def work() -> None:
            executor = job_executor(app.services, ServeConfig())
            if meanwhile is not None:
                asyncio.get_running_loop().call_later(0.05, meanwhile)
            await asyncio.wait_for(executor.execute(JOB, given, emit), 20)

        asyncio.run(work())
        return chunks

    return run


def test_a_whole_answer_is_one_chunk(app, run) -> None:
    ids = app.says("Paris is the capital.")
    (output,) = run(prompt="What?", sampling_params={"max_tokens": 50})
    usage = {"input": len(app.engine.requests[0].prompt_ids), "output": len(ids) + 1}
    assert output == {"choices": [{"tokens": ["Paris is the capital."]}], "usage": usage}


def test_an_empty_answer_is_still_one_chunk(app, run) -> None:
    app.engine.script.answer = [app.tokenizer.eos_token_id]
    (output,) = run(prompt="What?")
    assert output["choices"] == [{"tokens": [""]}]


def test_choices_in_order_and_usage_summed(app, run) -> None:
    app.says(" Paris", eos=False)
    (output,) = run(prompt="What?", sampling_params={"n": 3, "max_tokens": 2})
    assert output["choices"] == [{"tokens": [" Paris Paris"]}] * 3
    assert output["usage"]["output"] == 6


def test_check_18_chunks_of_a_stream(app, run) -> None:
    chunks = run(prompt="What?", stream=True, sampling_params={"max_tokens": 100, "ignore_eos": True})
    assert [len(chunk["choices"][0]["tokens"]) for chunk in chunks] == [1, 3, 9, 27, 50, 10]
    assert [chunk["usage"]["output"] for chunk in chunks] == [1, 4, 13, 40, 90, 100]
    joined = "".join(text for chunk in chunks for text in chunk["choices"][0]["tokens"])
    (whole,) = run(prompt="What?", sampling_params={"max_tokens": 100, "ignore_eos": True})
    assert joined == whole["choices"][0]["tokens"][0]


def test_check_18_two_choices_share_the_count(app, run) -> None:
    chunks = run(prompt="What?", stream=True, sampling_params={"n": 2, "max_tokens": 4})
    assert [[len(choice["tokens"]) for choice in chunk["choices"]] for chunk in chunks] == [[1, 0], [1, 2], [2, 2]]
    assert [chunk["usage"]["output"] for chunk in chunks] == [1, 4, 8]


def test_texts_held_back_are_empty_but_counted(app, run) -> None:
    app.says("🎉 done")
    chunks = run(prompt="What?", stream=True, max_batch_size=1, sampling_params={"max_tokens": 40})
    texts = [chunk["choices"][0]["tokens"] for chunk in chunks]
    assert all(len(each) == 1 for each in texts)
    assert texts[0] == [""]
    assert "".join(each[0] for each in texts) == "🎉 done"


def test_log_probabilities_where_asked_for(app, run) -> None:
    app.says(" Paris")
    chunks = run(prompt="What?", stream=True, max_batch_size=1, sampling_params={"logprobs": 2})
    first = chunks[0]["choices"][0]["logprobs"]
    assert first["tokens"] == [" Paris"]
    assert first["token_logprobs"] == [-0.5]
    assert len(first["top_logprobs"][0]) == 2


def test_messages_go_through_the_template(app, run) -> None:
    run(messages=MESSAGES)
    run(prompt="Hi", apply_chat_template=True)
    run(prompt="Hi")
    chat, templated, raw = (request.prompt_ids for request in app.engine.requests)
    assert chat == templated
    assert "<|im_start|>user\nHi<|im_end|>" in app.tokenizer.decode(chat, skip_special_tokens=False)
    assert raw == app.tokenizer.encode("Hi")


def test_the_last_prompt_tokens_are_kept(app, run) -> None:
    run(prompt="one two three four", sampling_params={"truncate_prompt_tokens": 2})
    assert app.engine.requests[0].prompt_ids == app.tokenizer.encode("one two three four")[-2:]


def test_an_openai_job_answers_what_the_route_answers(app, run) -> None:
    (chat,) = run(openai_input={"messages": MESSAGES, "max_tokens": 3})
    assert (chat["object"], chat["id"], chat["model"]) == ("chat.completion", "chatcmpl-job-1", "smol")
    (completion,) = run(openai_route="/v1/completions", openai_input={"prompt": "Hi", "max_tokens": 3})
    assert completion["object"] == "text_completion"
    (models,) = run(openai_route="/v1/models")
    assert [model["id"] for model in models["data"]] == ["smol", "smol-alias"]
    (model,) = run(route="/v1/models/smol-alias")
    assert model["id"] == "smol-alias"
    (tokens,) = run(route="/tokenize", body={"prompt": "Hi"})
    assert tokens["tokens"] == app.tokenizer.encode("Hi")


def test_an_openai_stream_is_texts_of_whole_events(app, run) -> None:
    app.engine.script.answer = app.tokenizer.encode("🎉", add_special_tokens=False)
    chunks = run(openai_input={"messages": MESSAGES, "max_tokens": 40, "stream": True, "ignore_eos": True})
    assert len(chunks) > 2
    assert all(chunk.startswith("data: ") and chunk.endswith("\n\n") for chunk in chunks)
    assert chunks[-1].endswith("data: [DONE]\n\n")
    assert [chunk.count("data: ") for chunk in chunks[:3]] == [1, 3, 9]


def test_the_openai_format_for_a_native_job(app, run) -> None:
    (chat,) = run(messages=MESSAGES, use_openai_format=True, sampling_params={"max_tokens": 3, "temperature": 0})
    assert chat["object"] == "chat.completion"
    assert chat["usage"]["completion_tokens"] == 3
    assert run(prompt="Hi", use_openai_format=True, stream=True)[-1].endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"prompt": "x", "sampling_params": {"top_p": 2}}, BadRequest, "top_p"),
        ({"prompt": "x" * 5000}, BadRequest, "context"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, BadRequest, "multimodal"),
        ({"openai_input": {"messages": MESSAGES, "model": "nope"}}, NotFound, "nope"),
        ({"openai_input": {"messages": 3}}, Exception, "messages"),
        ({"route": "/metrics"}, BadRequest, "cannot call '/metrics'"),
        ({"route": "/v2/default/purge-queue", "method": "POST"}, BadRequest, "cannot call"),
        ({"route": "/tokenizer_info"}, BadRequest, "cannot call"),
        ({"route": "/v1/completions"}, BadRequest, "takes POST, not GET"),
        ({"nothing": 1}, BadRequest, "must have one of"),
    ],
)
def test_what_is_wrong_fails_the_job(run, given: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        run(**given)


def test_an_engine_that_fails_or_dies_is_told_as_it_is(app, run) -> None:
    prompt = app.tokenizer.encode("broken")[0]
    app.engine.script = replace(app.engine.script, broken=frozenset({prompt}))
    with pytest.raises(EngineError, match="broken on purpose"):
        run(prompt="broken")
    app.engine.script = replace(app.engine.script, dies=True)
    for stream in (False, True):
        with pytest.raises(EngineDead):
            run(prompt="x", stream=stream)
        with pytest.raises(EngineDead):
            run(openai_input={"messages": MESSAGES, "stream": stream})


def test_an_engine_that_is_being_started_again_is_waited_for(app, run) -> None:
    app.engine.state = EngineState.RESTARTING

    def back() -> None:
        app.engine.state = EngineState.READY

    assert run(back, prompt="x")
    app.engine.state = EngineState.DEAD
    with pytest.raises(EngineDead):
        run(prompt="x")


def test_a_full_queue_of_the_engine_is_waited_for(make_app) -> None:
    app = make_app(limits={"max_num_queued_reqs": 1})
    app.says("free", eos=True)

    async def work() -> list[Any]:
        chunks: list[Any] = []

        async def emit(chunk: Any) -> None:
            chunks.append(chunk)

        executor = job_executor(app.services, ServeConfig())
        jobs = [executor.execute(JOB, {"prompt": f"{number}"}, emit) for number in range(4)]
        await asyncio.wait_for(asyncio.gather(*jobs), 20)
        return chunks

    assert len(asyncio.run(work())) == 4


def test_a_cancelled_job_aborts_its_request(app) -> None:
    async def work() -> None:
        executor = job_executor(app.services, ServeConfig())
        chunks: asyncio.Queue[Any] = asyncio.Queue()
        given = {"prompt": "x", "stream": True, "sampling_params": {"max_tokens": 400, "ignore_eos": True}}
        task = asyncio.create_task(executor.execute(JOB, given, chunks.put))
        await asyncio.wait_for(chunks.get(), 20)
        assert app.engine.running
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not app.engine.running

    asyncio.run(work())


def test_keys_that_mean_nothing(app, caplog: pytest.LogCaptureFixture) -> None:
    given = {"prompt": "x", "colour": "red"}

    async def emit(_: Any) -> None:
        pass

    asyncio.run(job_executor(app.services, ServeConfig()).execute(JOB, given, emit))
    assert "'colour' is unknown" in caplog.text
    strict = ServeConfig(api=ApiConfig(strict_requests=True))
    with pytest.raises(BadRequest, match="colour"):
        asyncio.run(job_executor(app.services, strict).execute(JOB, given, emit))
