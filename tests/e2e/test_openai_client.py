"""The official `openai` client against the real server, used as its users use it."""

from __future__ import annotations

import asyncio
import math

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

PROMPT = "The capital of France is"


def running_requests(url: str) -> float:
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith("vllm:num_requests_running{"):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError("no gauge of running requests")


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smol", "smol-alias"]
    model = client.models.retrieve("smol-alias")
    assert model.id == "smol-alias"
    assert model.max_model_len == 2048
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.models.retrieve("nope")


def test_completion(client: OpenAI) -> None:
    completion = client.completions.create(model="smol", prompt=PROMPT, max_tokens=8, temperature=0)
    assert "Paris" in completion.choices[0].text
    assert completion.choices[0].text.startswith(" ")
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 8
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 8
    assert completion.model == "smol"
    assert completion.id.startswith("cmpl-")


def test_an_alias_and_no_model_are_the_same_model(client: OpenAI) -> None:
    answers = {
        client.completions.create(model=name, prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text
        for name in ("smol", "smol-alias", "")
    }
    assert len(answers) == 1


def test_prompts_as_texts_and_ids(client: OpenAI, server) -> None:
    ids = httpx.post(f"{server.url}/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    options = {"model": "smol", "max_tokens": 6, "temperature": 0}
    text = client.completions.create(prompt=PROMPT, **options).choices[0].text
    assert client.completions.create(prompt=ids, **options).choices[0].text == text
    two = client.completions.create(prompt=[ids, ids], **options)
    assert [(choice.index, choice.text) for choice in two.choices] == [(0, text), (1, text)]
    sampled = {**options, "temperature": 1, "seed": 7, "extra_body": {"ignore_eos": True}}
    pair = client.completions.create(prompt=[PROMPT, "1, 2, 3,"], n=2, **sampled)
    assert [choice.index for choice in pair.choices] == [0, 1, 2, 3]
    assert pair.usage.completion_tokens == 24


def test_completion_stream_is_the_completion(client: OpenAI) -> None:
    options = {"model": "smol", "prompt": "🙂 Emoji: 🎉🎈", "max_tokens": 24, "temperature": 0.8, "seed": 3}
    whole = client.completions.create(**options).choices[0]
    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.text
    assert chunks[-2].choices[0].finish_reason == whole.finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 24
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_a_seed_repeats_and_others_differ(client: OpenAI) -> None:
    def text(seed: int | None) -> str:
        return (
            client.completions.create(model="smol", prompt=PROMPT, max_tokens=16, temperature=1, seed=seed)
            .choices[0]
            .text
        )

    assert text(11) == text(11)
    assert len({text(None) for _ in range(4)}) > 1


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smol",
        messages=[{"role": "user", "content": "What is the capital of Japan?"}],
        temperature=0,
        max_completion_tokens=32,
    )
    assert "Tokyo" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")


def test_chat_content_as_parts(client: OpenAI) -> None:
    options = {"model": "smol", "temperature": 0, "max_tokens": 12}
    plain = client.chat.completions.create(messages=[{"role": "user", "content": "Say hello."}], **options)
    parts = client.chat.completions.create(
        messages=[{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}], **options
    )
    assert parts.choices[0].message.content == plain.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="image"):
        client.chat.completions.create(
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}], **options
        )


def test_chat_stream(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    options = {"model": "smol", "messages": messages, "temperature": 0, "max_tokens": 100}
    whole = client.chat.completions.create(**options).choices[0]
    with client.chat.completions.stream(**options) as stream:
        assert [event.type for event in stream][-1] == "content.done"
        assert stream.get_final_completion().choices[0].message.content == whole.message.content
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", None]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_completion_logprobs(client: OpenAI) -> None:
    choice = client.completions.create(
        model="smol", prompt=PROMPT, max_tokens=4, temperature=0, logprobs=3, echo=True
    ).choices[0]
    logprobs = choice.logprobs
    assert choice.text.startswith(PROMPT)
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:i])) for i in range(len(logprobs.tokens))]
    columns = zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True)
    for token, logprob, top in list(columns)[-4:]:
        assert top[token] == logprob == max(top.values())  # greedy, and bit for bit


def test_chat_logprobs(client: OpenAI) -> None:
    content = (
        client.chat.completions.create(
            model="smol",
            messages=[{"role": "user", "content": "Hi"}],
            logprobs=True,
            top_logprobs=4,
            max_tokens=5,
            temperature=0,
        )
        .choices[0]
        .logprobs.content
    )
    assert 1 <= len(content) <= 5
    for entry in content:
        assert len(entry.top_logprobs) == 4
        assert bytes(entry.bytes).decode() == entry.token
        assert entry.top_logprobs[0].logprob == entry.logprob
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1.0001


def test_echo_of_a_whole_prompt_scores_it(client: OpenAI) -> None:
    """What lm-eval's log-likelihood requests do."""
    choice = client.completions.create(
        model="smol", prompt=PROMPT, max_tokens=0, echo=True, logprobs=1, temperature=0
    ).choices[0]
    assert choice.text == PROMPT
    assert choice.finish_reason == "length"
    assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == len(choice.logprobs.top_logprobs)
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])


def test_stop_strings_do_not_leak(client: OpenAI) -> None:
    options = {"model": "smol", "prompt": "1, 2, 3, 4, 5,", "max_tokens": 40, "temperature": 0}
    free = client.completions.create(**options).choices[0].text
    stop = free[9:14]
    cut = client.completions.create(**options, stop=[stop]).choices[0]
    assert cut.text == free[: free.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.stop_reason == stop
    streamed = "".join(c.choices[0].text for c in client.completions.create(**options, stop=[stop], stream=True))
    assert streamed == cut.text


def test_errors_are_the_clients_own_classes(client: OpenAI, server) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="nope", prompt="x")
    assert "does not exist" in missing.value.message
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="temperature") as range_error:
        client.completions.create(model="smol", prompt="x", temperature=3)
    assert range_error.value.body["code"] == 400
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens"):
        client.completions.create(model="smol", prompt=[5] * 3000)
    with pytest.raises(openai.BadRequestError, match="out of vocabulary"):
        client.completions.create(model="smol", prompt=[999999])
    with pytest.raises(openai.BadRequestError, match="greater than max allowed: 20"):
        client.completions.create(model="smol", prompt="x", logprobs=21)
    with pytest.raises(openai.BadRequestError, match="guided_choice"):
        client.completions.create(model="smol", prompt="x", extra_body={"guided_choice": []})


def test_request_ids(client: OpenAI) -> None:
    completion = client.completions.create(
        model="smol", prompt="x", max_tokens=1, extra_headers={"x-request-id": "completion-test"}
    )
    assert completion._request_id == "completion-test"
    assert completion.id == "cmpl-completion-test"


def test_a_prefix_is_found_again(client: OpenAI) -> None:
    ids = list(range(1000, 1200))
    first = client.completions.create(model="smol", prompt=ids, max_tokens=1, temperature=0)
    again = client.completions.create(model="smol", prompt=ids, max_tokens=1, temperature=0)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert again.usage.prompt_tokens_details.cached_tokens >= 176
    assert again.choices[0].text == first.choices[0].text


def test_several_clients_at_once(server) -> None:
    async def run() -> None:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="EMPTY", max_retries=0) as client:

            async def complete(index: int) -> str:
                options = {"model": "smol", "prompt": f"{index} plus {index} is", "max_tokens": 12, "temperature": 0}
                if index % 2:
                    return (await client.completions.create(**options)).choices[0].text
                stream = await client.completions.create(**options, stream=True)
                return "".join([chunk.choices[0].text async for chunk in stream])

            together = await asyncio.gather(*(complete(index // 2) for index in range(24)))
            assert together[0::2] == together[1::2]

    asyncio.run(run())


def test_a_client_that_leaves_frees_its_blocks(client: OpenAI, server) -> None:
    stream = client.completions.create(
        model="smol", prompt=PROMPT, max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert running_requests(server.url) == 1
    stream.close()
    # A request behind it sees the place free: once it has ended, nothing runs any more.
    client.completions.create(model="smol", prompt=PROMPT, max_tokens=4)
    assert running_requests(server.url) == 0
