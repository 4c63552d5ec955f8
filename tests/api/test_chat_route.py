"""/v1/chat/completions, whole and streamed."""

from __future__ import annotations

import pytest

from headrace.text import ChatTemplate

PATH = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}


def test_body_has_every_field(app):
    app.says("Hello!")
    body = app.chat()
    (choice,) = body["choices"]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "Hello!",
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        },
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "smol")
    unset = ("service_tier", "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params")
    assert {name: body[name] for name in unset} == dict.fromkeys(unset)
    assert body["usage"]["prompt_tokens"] == len(app.engine.requests[0].prompt_ids)


def test_stream_is_role_content_terminal_usage(app):
    app.says("Hello!")
    role, *content, usage = app.stream_chat(stream_options={"include_usage": True})
    assert role["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert (role["prompt_token_ids"], role["prompt_text"]) == (None, None)
    first, terminal = content[0], content[-1]
    assert first["choices"][0] == {
        "index": 0,
        "delta": {"content": "Hello"},
        "logprobs": None,
        "finish_reason": None,
        "token_ids": None,
    }
    assert first.keys() == {"id", "object", "created", "model", "choices"}
    assert terminal["choices"][0]["finish_reason"] == "stop"
    assert terminal["choices"][0]["stop_reason"] is None
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert len({(event["id"], event["created"]) for event in (role, *content, usage)}) == 1
    assert {event["object"] for event in (role, *content, usage)} == {"chat.completion.chunk"}


def test_terminal_chunk_without_text_has_an_empty_delta(app):
    app.engine.script.answer = [app.tokenizer.eos_token_id]
    _, terminal = app.stream_chat()
    assert terminal["choices"][0]["delta"] == {}
    assert terminal["system_fingerprint"].startswith("headrace-")


def test_roles_of_all_choices_come_first(app):
    app.says("Hello!")
    events = app.stream_chat(n=3, seed=1)
    assert [event["choices"][0]["index"] for event in events[:3]] == [0, 1, 2]
    assert all(event["choices"][0]["delta"].get("role") == "assistant" for event in events[:3])
    assert all("role" not in event["choices"][0]["delta"] for event in events[3:])


def test_continuous_usage_starts_at_zero(app):
    app.says("Hello!")
    role, *rest = app.stream_chat(stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert role["usage"]["completion_tokens"] == 0
    assert [event["usage"]["completion_tokens"] for event in rest][-2:] == [3, 3]


def test_answer_may_fill_the_context(app):
    app.says(" a", eos=False)
    body = app.chat()
    assert body["usage"]["total_tokens"] == 512
    assert body["choices"][0]["finish_reason"] == "length"


def test_max_completion_tokens_wins(app):
    app.says(" a", eos=False)
    assert app.chat(max_tokens=9, max_completion_tokens=2)["usage"]["completion_tokens"] == 2
    assert app.chat(max_tokens=9)["usage"]["completion_tokens"] == 9


def test_n_null_is_one(app):
    assert len(app.chat(n=None)["choices"]) == 1


def test_logprobs_alone_have_no_alternatives(app):
    app.says("Hi")
    entries = app.chat(logprobs=True)["choices"][0]["logprobs"]["content"]
    assert entries[0] == {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    assert len(entries) == 2


@pytest.mark.parametrize(("rank", "offsets"), [(1, (0, 1)), (2, (0, 1)), (9, (0, 1))])
def test_chosen_token_leads_the_alternatives(app, rank, offsets):
    """Whatever its rank; the last alternative is dropped where there would be one too many."""
    (hi,) = app.says("Hi")
    app.engine.script.rank = rank
    top = app.chat(logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert [entry["token"] for entry in top] == [app.tokenizer.token_text(hi + offset, ()) for offset in offsets]


def test_logprobs_with_tokens_as_ids(app):
    (hi,) = app.says("Hi")
    entry = app.chat(logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True)["choices"][0]["logprobs"][
        "content"
    ][0]
    name = f"token_id:{hi}"
    assert (entry["token"], entry["bytes"]) == (name, [72, 105])
    assert entry["top_logprobs"] == [{"token": name, "logprob": -0.5, "bytes": list(name.encode())}]


def test_streamed_logprobs_cover_every_token(app):
    app.says("héllo 🙂!")
    whole = app.chat(logprobs=True, top_logprobs=1)
    events = app.stream_chat(logprobs=True, top_logprobs=1)
    pieces = [event["choices"][0]["logprobs"]["content"] for event in events[1:]]
    assert [entry for piece in pieces for entry in piece] == whole["choices"][0]["logprobs"]["content"]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert text == whole["choices"][0]["message"]["content"] == "héllo 🙂!"


def test_no_chunk_while_text_is_held_back(app):
    app.says("héllo 🙂!")
    contents = [event["choices"][0]["delta"].get("content") for event in app.stream_chat()[1:]]
    assert "" not in contents


def test_token_ids_in_a_stream(app):
    ids = app.says("héllo 🙂!")
    role, *rest = app.stream_chat(return_token_ids=True, return_prompt_text=True)
    assert role["prompt_token_ids"] == app.engine.requests[0].prompt_ids
    assert "<|im_start|>user\nHi<|im_end|>" in role["prompt_text"]
    streamed = [token for event in rest for token in event["choices"][0]["token_ids"]]
    assert streamed == [*ids, app.tokenizer.eos_token_id]


def test_prompt_in_the_body(app):
    body = app.chat(return_token_ids=True, return_prompt_text=True, prompt_logprobs=1)
    assert body["prompt_token_ids"] == app.engine.requests[0].prompt_ids
    assert body["prompt_text"].endswith("<|im_start|>assistant\n")
    assert len(body["prompt_logprobs"]) == len(body["prompt_token_ids"])
    assert body["prompt_logprobs"][0] is None


def test_continued_message_and_echo(app):
    app.says(" Paris.")
    conversation = {
        "messages": [USER, {"role": "assistant", "content": "It is"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    }
    body = app.ok(PATH, **conversation, return_prompt_text=True)
    assert body["prompt_text"].endswith("<|im_start|>assistant\nIt is")
    assert body["choices"][0]["message"]["content"] == " Paris."
    assert app.ok(PATH, **conversation, echo=True)["choices"][0]["message"]["content"] == "It is Paris."
    _, echo, *rest = app.stream(PATH, **conversation, echo=True)
    assert echo["choices"][0]["delta"] == {"content": "It is"}
    assert rest[0]["choices"][0]["delta"] == {"content": " Paris"}


def test_role_is_that_of_the_turn_written_on(make_app):
    app = make_app(api={"response_role": "robot"})
    assert app.chat()["choices"][0]["message"]["role"] == "robot"
    body = app.chat(add_generation_prompt=False)
    assert body["choices"][0]["message"]["role"] == "user"


def test_parts_and_unknown_message_fields(app):
    parts = [{"type": "text", "text": "A"}, "B", {"type": "input_text", "text": "C"}]
    body = app.ok(PATH, messages=[{"role": "user", "content": parts, "name": "x"}], return_prompt_text=True)
    assert "A\nB\nC" in body["prompt_text"]


def test_template_variables_reach_the_template(make_app):
    shows = "{{ reasoning_effort }}|{{ enable_thinking }}|{{ place }}|{{ colour }}|{{ documents }}"
    variables = {"place": "server", "colour": "red"}
    app = make_app(chat_template=ChatTemplate(shows, {}), api={"default_chat_template_kwargs": variables})
    body = app.chat(
        reasoning_effort="none",
        chat_template_kwargs={"place": "request"},
        documents=[{"title": "t"}],
        return_prompt_text=True,
    )
    assert body["prompt_text"] == "none|False|request|red|[{'title': 't'}]"
    body = app.chat(reasoning_effort="high", chat_template_kwargs={"enable_thinking": False}, return_prompt_text=True)
    assert body["prompt_text"].startswith("high|False|")
