"""Every route of a real server, through both clients."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from both_clients import Driver
from running_server import Server

from headrace.client import AsyncClient, BadRequestError, Client, JobFailed, NotFoundError

PROMPT = "The capital of France is"
GREEDY = {"temperature": 0.0, "max_tokens": 6}


def test_models(drive: Driver, server: Server):
    (model,) = drive(server.url, "models")
    assert (model.id, model.max_model_len) == ("smol", 2048)


def test_completions_whole_and_streamed(drive: Driver, server: Server):
    whole = drive(server.url + "/v1", "complete", PROMPT, **GREEDY, logprobs=1)
    assert "Paris" in whole.text
    assert whole.usage.completion_tokens == 6
    assert len(whole.choices[0].logprobs.tokens) == 6
    chunks = drive(server.url, "complete", PROMPT, **GREEDY, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert len(chunks) > 3
    assert chunks[-1].usage.completion_tokens == 6
    several = drive(server.url, "complete", [PROMPT, "Once"], n=2, max_tokens=2, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]


def test_chat_whole_and_streamed(drive: Driver, server: Server):
    messages = [{"role": "user", "content": "Name a colour."}]
    whole = drive(server.url, "chat", messages, **GREEDY, logprobs=True, top_logprobs=2, seed=None)
    assert whole.text
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    chunks = drive(server.url, "chat", messages, **GREEDY, stream=True)
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_token_ids_in_and_out(drive: Driver, server: Server):
    prompt = drive(server.url, "tokenize", PROMPT, return_token_strs=True)
    assert prompt.count == len(prompt.tokens) == len(prompt.token_strs)
    assert drive(server.url, "detokenize", prompt.tokens) == PROMPT
    sampling = {**GREEDY, "logprobs": 1}
    whole = drive(server.url, "tokens", prompt.tokens, sampling)
    assert len(whole.token_ids) == 6
    assert whole.choices[0].logprobs.content[0].token_id == whole.token_ids[0]
    chunks = drive(server.url, "tokens", prompt.tokens, sampling, stream=True)
    assert [token for chunk in chunks for token in chunk.token_ids] == whole.token_ids
    text = drive(server.url, "tokens", prompt.tokens, sampling, output_mode="text").choices[0].text
    assert text == drive(server.url, "detokenize", whole.token_ids)


def test_a_conversation_is_tokenized_by_its_template(drive: Driver, server: Server):
    conversation = drive(server.url, "tokenize", [{"role": "user", "content": "Hi"}])
    assert conversation.count > drive(server.url, "tokenize", "Hi").count


def test_legacy_texts(drive: Driver, server: Server):
    (whole,) = drive(server.url, "legacy_generate", PROMPT, **GREEDY)
    assert whole.startswith(PROMPT)
    lines = drive(server.url, "legacy_generate", PROMPT, stream=True, **GREEDY)
    assert lines[-1] == [whole]
    assert len(lines) > 3


def test_refusals_carry_the_servers_words(drive: Driver, server: Server):
    with pytest.raises(BadRequestError, match="top_p") as caught:
        drive(server.url, "complete", PROMPT, top_p=7.0, stream=True)
    assert (caught.value.status, caught.value.param, caught.value.type) == (400, "top_p", "BadRequestError")
    assert caught.value.request_id
    with pytest.raises(NotFoundError):
        drive(server.url, "chat", [], model="another")
    with pytest.raises(NotFoundError):
        drive(server.url, "complete", PROMPT, options={"model": "another"})
    with pytest.raises(BadRequestError, match="no_such"):
        drive(server.url, "legacy_generate", PROMPT, no_such=1)
    with pytest.raises(BadRequestError, match="min_p"):
        drive(server.url, "complete", PROMPT, extra_body={"min_p": 7})


def test_jobs(drive: Driver, server: Server):
    job_input = {"prompt": PROMPT, "stream": True, "max_batch_size": 1, "sampling_params": GREEDY}
    queued = drive(server.url, "jobs.run", job_input, ttl=60.0, execution_timeout=30.0, low_priority=True)
    assert not queued.ended
    chunks = drive(server.url, "jobs.stream", queued.id)
    text = "".join("".join(chunk["choices"][0]["tokens"]) for chunk in chunks)
    assert "Paris" in text
    assert drive(server.url, "jobs.stream", queued.id, offset=len(chunks) - 1) == chunks[-1:]
    done = drive(server.url, "jobs.status", queued.id)
    assert (done.status, done.output, done.error) == ("COMPLETED", chunks, None)
    assert done.execution_time > 0
    (newest,) = drive(server.url, "jobs.list", status="COMPLETED", limit=1)
    assert (newest.id, newest.output) == (queued.id, None)
    assert drive(server.url, "jobs.cancel", queued.id).status == "COMPLETED"
    with pytest.raises(BadRequestError):
        drive(server.url, "jobs.retry", queued.id)
    waited = drive(server.url, "jobs.runsync", {"prompt": PROMPT, "sampling_params": GREEDY}, wait=60.0)
    assert "".join(waited.output[0]["choices"][0]["tokens"]) == text
    assert drive(server.url, "jobs.purge") == 0
    assert drive(server.url, "jobs.health").jobs.completed >= 2


def test_jobs_that_fail(drive: Driver, server: Server):
    queued = drive(server.url, "jobs.run", {"prompt": PROMPT, "sampling_params": {"top_p": 7}})
    with pytest.raises(JobFailed, match="top_p"):
        drive(server.url, "jobs.stream", queued.id)
    assert drive(server.url, "jobs.status", queued.id).status == "FAILED"
    assert drive(server.url, "jobs.retry", queued.id).status == "IN_QUEUE"
    with pytest.raises(NotFoundError, match="No such job"):
        drive(server.url, "jobs.status", "no-such-job")


def test_jobs_of_a_named_endpoint_and_keys_of_ones_own(server: Server):
    with Client(server.url) as client:
        jobs = client.jobs.at("smol")
        job_input = {"prompt": PROMPT, "sampling_params": GREEDY}
        first = jobs.run(job_input, idempotency_key="once")
        assert jobs.run(job_input, idempotency_key="once").id == first.id
        with pytest.raises(NotFoundError, match="nowhere"):
            client.jobs.at("nowhere").health()


def test_leaving_a_stream_frees_the_engine(server: Server):
    with Client(server.url) as client:
        with client.complete("Once", stream=True, max_tokens=2000, ignore_eos=True) as stream:
            next(stream)
        assert_idle(server)


def test_many_at_once_and_a_task_that_is_cancelled(server: Server):
    async def run() -> None:
        async with AsyncClient(server.url) as client:
            forever = asyncio.create_task(client.complete("Once", max_tokens=2000, ignore_eos=True))
            answers = await asyncio.gather(*(client.complete(PROMPT, **GREEDY) for _ in range(20)))
            assert len({answer.text for answer in answers}) == 1
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever

    asyncio.run(run())
    assert_idle(server)


def assert_idle(server: Server) -> None:
    """Within a step or two nothing runs, or one of these requests is lost: they would take many seconds."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        lines = httpx.get(server.url + "/metrics").text.splitlines()
        if any(line.startswith("vllm:num_requests_running") and line.endswith(" 0.0") for line in lines):
            return
    pytest.fail("the engine still runs a request that nobody waits for")
