"""The Python API on the real model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import headrace
from headrace import LLM, CompletionOutput, RequestOutput, SamplingParams
from headrace.core.errors import BadRequest, ConfigError, ContextOverflow, EngineDead

GREEDY = SamplingParams(temperature=0, max_tokens=8)
QUESTION = {"role": "user", "content": "What is the capital of Japan?"}


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> Iterator[LLM]:
    with LLM(str(smollm2_path), max_model_len=512, max_num_seqs=8, kv_cache_memory_bytes="256M", threads=1) as llm:
        yield llm


def test_generate(llm: LLM) -> None:
    (output,) = llm.generate("The capital of France is", GREEDY, use_tqdm=False)
    assert isinstance(output, RequestOutput)
    assert output.prompt == "The capital of France is"
    assert output.prompt_token_ids == llm.get_tokenizer().encode(output.prompt)
    assert output.finished
    (answer,) = output.outputs
    assert isinstance(answer, CompletionOutput)
    assert answer.text.startswith(" Paris")
    assert answer.text == llm.get_tokenizer().decode(answer.token_ids)
    assert (answer.index, len(answer.token_ids), answer.finish_reason, answer.stop_reason) == (0, 8, "length", None)
    assert answer.logprobs is None
    assert answer.cumulative_logprob is None


def test_every_form_of_prompt(llm: LLM) -> None:
    text = "The capital of France is"
    ids = llm.get_tokenizer().encode(text)
    outputs = llm.generate([text, ids, {"prompt": text}, {"prompt_token_ids": ids}], GREEDY, use_tqdm=False)
    assert len({output.outputs[0].text for output in outputs}) == 1
    assert [output.prompt for output in outputs] == [text, None, text, None]
    assert llm.generate(ids, GREEDY, use_tqdm=False)[0].outputs[0].text == outputs[0].outputs[0].text
    assert len({output.request_id for output in outputs}) == 4
    assert llm.generate([], GREEDY) == []


def test_answers_are_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = [f"{number}, {number + 1}, {number + 2}," for number in range(1, 20)]
    params = [SamplingParams(temperature=0, max_tokens=1 + number % 5) for number in range(len(prompts))]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert [output.prompt for output in outputs] == prompts
    assert [len(output.outputs[0].token_ids) for output in outputs] == [param.max_tokens for param in params]


def test_choices_and_stop_strings(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=5, max_tokens=12, stop=["."])
    (output,) = llm.generate("The weather today is", params, use_tqdm=False)
    assert [answer.index for answer in output.outputs] == [0, 1, 2]
    assert len({answer.text for answer in output.outputs}) > 1
    for answer in output.outputs:
        assert "." not in answer.text
        assert (answer.finish_reason, answer.stop_reason) in [("stop", "."), ("length", None), ("stop", None)]
    assert llm.generate("The weather today is", params, use_tqdm=False)[0].outputs == output.outputs


def test_logprobs(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=3, logprobs=2, prompt_logprobs=1)
    (output,) = llm.generate("The capital of France is", params, use_tqdm=False)
    answer = output.outputs[0]
    assert answer.logprobs is not None
    for token, table in zip(answer.token_ids, answer.logprobs, strict=True):
        assert len(table) == 2
        assert next(iter(table)) == token
        assert table[token].rank == 1
    chosen = [table[token] for token, table in zip(answer.token_ids, answer.logprobs, strict=True)]
    assert "".join(entry.decoded_token or "" for entry in chosen) == answer.text
    assert answer.cumulative_logprob == pytest.approx(sum(entry.logprob for entry in chosen))
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    for token, table in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True):
        assert table is not None
        assert token in table
        assert any(entry.rank == 1 for entry in table.values())


def test_beam_search(llm: LLM) -> None:
    params = SamplingParams(use_beam_search=True, n=3, temperature=0, max_tokens=8, length_penalty=0.0, ignore_eos=True)
    (output,) = llm.generate("The capital of France is", params, use_tqdm=False)
    answers = output.outputs
    assert [answer.index for answer in answers] == [0, 1, 2]
    assert len({tuple(answer.token_ids) for answer in answers}) == 3
    assert [answer.finish_reason for answer in answers] == ["length"] * 3
    costs = [answer.cumulative_logprob for answer in answers]
    assert costs == sorted(costs, reverse=True)
    (greedy,) = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=8, logprobs=0))
    assert greedy.outputs[0].cumulative_logprob is not None
    assert costs[0] >= greedy.outputs[0].cumulative_logprob
    (narrow,) = llm.generate("The capital of France is", replace(params, n=1, best_of=3, logprobs=1), use_tqdm=False)
    assert narrow.outputs[0].token_ids == answers[0].token_ids
    tables = narrow.outputs[0].logprobs
    assert [len(table) for table in tables] == [
        1 if table[token].rank == 1 else 2 for token, table in zip(answers[0].token_ids, tables, strict=True)
    ]
    assert sum(table[token].logprob for token, table in zip(answers[0].token_ids, tables, strict=True)) == (
        pytest.approx(costs[0])
    )


def test_best_of(llm: LLM) -> None:
    params = SamplingParams(n=5, seed=3, max_tokens=6, logprobs=0)
    (drawn,) = llm.generate("The weather today is", params, use_tqdm=False)
    (best,) = llm.generate("The weather today is", replace(params, n=2, best_of=5, logprobs=None), use_tqdm=False)
    ranked = sorted(drawn.outputs, key=lambda answer: -answer.cumulative_logprob)
    assert [answer.text for answer in best.outputs] == [answer.text for answer in ranked[:2]]
    assert [answer.cumulative_logprob for answer in best.outputs] == [
        answer.cumulative_logprob for answer in ranked[:2]
    ]
    assert best.outputs[0].logprobs is None


def test_logprobs_of_certain_tokens(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=2, logprobs=0)
    prompt = "The capital of France is"
    (everything,) = llm.generate(prompt, replace(params, logprobs=1), use_tqdm=False)
    paris = everything.outputs[0].token_ids[0]
    (output,) = llm.generate(prompt, replace(params, logprob_token_ids=[17, 4000, paris]), use_tqdm=False)
    first, second = output.outputs[0].logprobs
    assert list(first) == [paris, 17, 4000]
    assert first[paris] == everything.outputs[0].logprobs[0][paris]
    assert first[17].rank > 1
    assert first[17].logprob < first[paris].logprob
    assert set(second) == {output.outputs[0].token_ids[1], 17, 4000, paris}


def test_chat(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=16)
    (output,) = llm.chat([QUESTION], params, use_tqdm=False)
    assert output.prompt is not None
    assert output.prompt.endswith("<|im_start|>assistant\n")
    assert "Tokyo" in output.outputs[0].text
    several = llm.chat([[QUESTION], [{"role": "user", "content": "Say hello."}]], params, use_tqdm=False)
    assert several[0].outputs == output.outputs
    assert several[1].outputs != output.outputs


def test_continuing_a_message(llm: LLM) -> None:
    messages = [QUESTION, {"role": "assistant", "content": "The capital of Japan is"}]
    (output,) = llm.chat(messages, GREEDY, use_tqdm=False, add_generation_prompt=False, continue_final_message=True)
    assert output.outputs[0].text.startswith(" Tokyo")


def test_default_sampling_params(smollm2_path: Path, llm: LLM) -> None:
    assert llm.get_default_sampling_params().max_tokens == SamplingParams().max_tokens
    override = {"temperature": 0.0, "max_new_tokens": 4}
    with LLM(str(smollm2_path), threads=1, max_model_len=128, override_generation_config=override) as other:
        assert other.get_default_sampling_params() == SamplingParams(temperature=0.0, max_tokens=4)
        (output,) = other.generate("The capital of France is", use_tqdm=False)
        assert len(output.outputs[0].token_ids) == 4


@pytest.mark.parametrize(
    ("prompt", "params", "reason"),
    [
        ("", GREEDY, "empty"),
        ([[1, 10**6]], GREEDY, "out of vocabulary"),
        ([[1.5]], GREEDY, "text or a list of token ids"),
        ({"prompt": "x", "multi_modal_data": {}}, GREEDY, "multi_modal_data"),
        ({}, GREEDY, "needs one of"),
        (["a", "b"], [GREEDY], "one for each of the 2 prompts"),
        ("x", SamplingParams(logprobs=21), "max allowed: 20"),
    ],
)
def test_mistakes(llm: LLM, prompt: object, params: object, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        llm.generate(prompt, params, use_tqdm=False)  # type: ignore[arg-type]


def test_one_bad_prompt_runs_none(llm: LLM) -> None:
    with pytest.raises(ContextOverflow):
        llm.generate(["fine", "too long " * 600], GREEDY, use_tqdm=False)
    assert llm.generate("fine", GREEDY, use_tqdm=False)[0].finished


def test_inside_a_running_event_loop(llm: LLM) -> None:
    """As in a notebook."""

    async def cell() -> list[RequestOutput]:
        return llm.generate("One, two,", GREEDY, use_tqdm=False)

    assert asyncio.run(cell())[0].finished


def test_progress_bar(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(["One, two,"] * 3, GREEDY)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "tok/s" in shown
    llm.generate("One, two,", GREEDY, use_tqdm=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_num_seq": 4}, "LLM has no option max_num_seq; did you mean max_num_seqs"),
        ({"trust_remote_code": True}, "LLM has no option trust_remote_code; known are: runner, convert, task"),
        ({"dtype": "int3"}, "dtype"),
    ],
)
def test_options_that_make_no_sense(smollm2_path: Path, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        LLM(str(smollm2_path), **options)


def test_closed_twice_and_used_after(smollm2_path: Path) -> None:
    llm = LLM(str(smollm2_path), threads=1, max_model_len=128)
    llm.close()
    llm.close()
    with pytest.raises(EngineDead, match="closed"):
        llm.generate("x", GREEDY, use_tqdm=False)


def test_interpreter_ends_cleanly_without_close(smollm2_path: Path) -> None:
    code = (
        "import sys; from headrace import LLM, SamplingParams\n"
        "llm = LLM(sys.argv[1], max_model_len=128, threads=1)\n"
        "print(llm.generate('One, two,', SamplingParams(temperature=0, max_tokens=2))[0].outputs[0].text)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(smollm2_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "three" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_exports() -> None:
    assert set(headrace.__all__) <= set(dir(headrace))
    assert all(getattr(headrace, name) is not None for name in headrace.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = headrace.nope
