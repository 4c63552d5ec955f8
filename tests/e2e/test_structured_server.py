"""The form of answers on the real server, asked for as users ask: the `openai` client, older fields, jobs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from job_calls import JobCalls
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

MODEL = "smol"


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Pet(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a small model would go on inventing properties

    kind: Literal["cat", "dog"]
    name: str = Field(max_length=12)


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=16, description="The full name.")
    age: int = Field(ge=0, le=120)
    mood: Mood
    pets: list[Pet] = Field(max_length=2)
    note: str | None = Field(max_length=16)


@pytest.fixture(scope="module")
def jobs(server: Any) -> Iterator[JobCalls]:
    calls = JobCalls(server.url)
    yield calls
    calls.close()


def complete(client: OpenAI, prompt: str = "Answer:", **body: Any) -> Any:
    return client.completions.create(model=MODEL, prompt=prompt, max_tokens=100, extra_body=body).choices[0]


def test_parse_gives_pydantic_models(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Invent a person with a cat."}],
        response_format=Person,
        max_tokens=300,
        seed=1,
    )
    assert completion.choices[0].finish_reason == "stop"
    assert isinstance(completion.choices[0].message.parsed, Person)


def test_a_stream_gives_what_the_whole_gives(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "A pet, please."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": Pet.model_json_schema()}},
        "max_tokens": 300,
        "seed": 3,
        "n": 2,
    }
    whole = client.chat.completions.create(**asked)
    texts, reasons = ["", ""], [None, None]
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices] == ["stop", "stop"]
    for text in texts:
        Pet.model_validate_json(text)


def test_the_streaming_helper_parses_as_it_goes(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "A pet."}],
        response_format=Pet,
        max_tokens=100,
    ) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Pet)


def test_json_object(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Give me a small JSON object."}],
        response_format={"type": "json_object"},
        max_tokens=300,
        temperature=0,
    )
    (choice,) = completion.choices
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    assert choice.message.content.startswith("{")


def test_the_fields_of_the_users_guide(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Classify this sentiment: Headrace is wonderful!"}],
        extra_body={"guided_choice": ["positive", "negative"]},
    )
    assert completion.choices[0].message.content in ("positive", "negative")
    assert re.fullmatch(r"\w{2,8}@\w{2,8}\.com", complete(client, guided_regex=r"\w{2,8}@\w{2,8}\.com").text)
    sql = 'root ::= "SELECT " ("a" | "b") " FROM " [a-z]{1,5}'
    assert re.fullmatch(r"SELECT [ab] FROM [a-z]{1,5}", complete(client, guided_grammar=sql).text)
    Pet.model_validate_json(complete(client, guided_json=Pet.model_json_schema()).text)
    Pet.model_validate_json(complete(client, structured_outputs={"json": json.dumps(Pet.model_json_schema())}).text)


def test_forbidden_tokens_are_shown_as_such(client: OpenAI) -> None:
    completion = client.completions.create(
        model=MODEL, prompt="Pick", logprobs=5, max_tokens=10, extra_body={"guided_choice": ["yes", "no"]}
    )
    logprobs = completion.choices[0].logprobs
    assert all(value > -9999 for value in logprobs.token_logprobs)
    assert min(logprobs.top_logprobs[-1].values()) == -9999.0


def test_tokens_in_tokens_out(server: Any) -> None:
    body = {
        "token_ids": [504, 3575, 282],
        "sampling_params": {"structured_outputs": {"choice": ["red", "green"]}, "max_tokens": 20},
        "output_mode": "text",
    }
    choice = httpx.post(f"{server.url}/inference/v1/generate", json=body, timeout=60).json()["choices"][0]
    assert choice["text"] in ("red", "green")
    assert choice["finish_reason"] == "stop"


def test_jobs(jobs: JobCalls) -> None:
    given = {"prompt": "Pick one:", "sampling_params": {"guided_choice": ["red", "green"], "max_tokens": 20}}
    done = jobs.post("/runsync", {"input": given})
    assert done["output"][0]["choices"][0]["tokens"][0] in ("red", "green")
    given["sampling_params"]["guided_choice"] = []
    failed = jobs.post("/runsync", {"input": given})
    assert failed["status"] == "FAILED"
    assert "guided_choice" in failed["error"]


def test_what_takes_forever_to_compile_holds_up_nobody(client: OpenAI, server: Any) -> None:
    """Each of these patterns is harmless; what they have in common takes hours to find."""
    patterns = [f"[a-m]*{letter}[n-z]{{3,30}}" for letter in "abcdefghijklmnopqrst"]
    hostile = {"type": "string", "allOf": [{"pattern": pattern} for pattern in patterns]}
    with ThreadPoolExecutor(1) as beside:
        doomed = beside.submit(complete, client, guided_json=hostile)
        began = time.monotonic()
        assert complete(client, guided_choice=["a"]).text == "a"
        assert complete(client, "Once upon a time").text
        assert httpx.get(f"{server.url}/health", timeout=5).status_code == 200
        if not doomed.done():
            assert time.monotonic() - began < 60
        with pytest.raises(openai.BadRequestError, match=r"guided_json: too costly"):
            doomed.result(60)
    assert complete(client, guided_choice=["b"]).text == "b"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"guided_choice": ["a", "b"], "allowed_token_ids": [1, 2, 3]}, "No token is left to choose"),
        ({"guided_regex": "((a{1,1000}){1,1000}){1,1000}"}, "grammar cannot be followed"),
    ],
)
def test_what_only_the_engine_finds_out_is_still_the_callers_to_mend(client: OpenAI, asked: dict, reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        complete(client, **asked)
    assert complete(client, guided_choice=["a"]).text == "a"


def test_the_cost_is_measured(client: OpenAI, server: Any) -> None:
    complete(client, guided_choice=["a"])
    counted = re.search(
        r"^vllm:grammar_mask_seconds_count\{[^}]*\} (\S+)$", httpx.get(f"{server.url}/metrics").text, re.MULTILINE
    )
    assert counted is not None
    assert float(counted[1]) > 0


def test_an_engine_that_was_started_again_knows_the_vocabulary(smollm2_path, start_server) -> None:
    serving = start_server(str(smollm2_path), "--served-model-name", MODEL, "--max-model-len", "512")
    with serving as server, server.client() as client:
        assert complete(client, guided_choice=["a"]).text == "a"
        os.kill(engine_of(server), signal.SIGKILL)
        deadline = time.monotonic() + 60
        answered = None
        while answered is None:
            assert time.monotonic() < deadline
            with contextlib.suppress(openai.InternalServerError):  # 503, until the new one is there
                answered = complete(client, guided_choice=["b"]).text
        assert answered == "b"


def engine_of(server: Any) -> int:
    """Process id of the server's engine."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (engine,) = [int(pid) for pid in children if "headrace.runtime.child" in Path(f"/proc/{pid}/cmdline").read_text()]
    return engine
