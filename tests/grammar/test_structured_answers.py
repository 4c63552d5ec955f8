"""A real model under constraints: every finished answer meets its own, and neighbours are as without them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from random_schemas import SchemaMaker

from headrace import LLM, SamplingParams, StructuredOutputsParams
from headrace.core.errors import BadRequest
from headrace.outputs import CompletionOutput

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PROMPTS = ("A record in JSON, short: ", "Fill in the form with an example.\n", "{", "The answer is ")
CHECKED_FORMATS = jsonschema.FormatChecker(("date", "ipv4", "uuid"))
"""Of the others, jsonschema knows less than the standards."""

SCHEMAS = 200
FINISHED = 0.9
"""Share of the answers that are to be complete within the tokens they get."""


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> Iterator[LLM]:
    with LLM(str(smollm2_path), max_num_seqs=64, max_model_len=1024, kv_cache_memory_bytes="1g") as llm:
        yield llm


def shaped(max_tokens: int = 64, **fields: Any) -> SamplingParams:
    """`fields` of the constraint and of the sampling parameters, together."""
    ours = {name: fields.pop(name) for name in StructuredOutputsParams.__dataclass_fields__ if name in fields}
    return SamplingParams(max_tokens=max_tokens, structured_outputs=StructuredOutputsParams(**ours), **fields)


def answers(llm: LLM, prompt: str, sampling: SamplingParams) -> list[CompletionOutput]:
    (output,) = llm.generate(prompt, sampling, use_tqdm=False)
    return output.outputs


def answer(llm: LLM, prompt: str, sampling: SamplingParams) -> CompletionOutput:
    (one,) = answers(llm, prompt, sampling)
    return one


def test_200_random_schemas_are_met(llm: LLM) -> None:
    maker = SchemaMaker(seed=5)
    schemas = [maker.schema() for _ in range(SCHEMAS)]
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(SCHEMAS)]
    sampling = [
        shaped(120, json=schema, seed=number, temperature=(0.0, 0.8)[number % 4 > 0])
        for number, schema in enumerate(schemas)
    ]
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    finished = 0
    for schema, output in zip(schemas, outputs, strict=True):
        (one,) = output.outputs
        if one.finish_reason == "stop":
            finished += 1
            validator = jsonschema.Draft202012Validator(schema, format_checker=CHECKED_FORMATS)
            validator.validate(json.loads(one.text))
        else:
            assert one.finish_reason == "length"
    assert finished >= FINISHED * SCHEMAS


EXPRESSIONS = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    r"^(yes|no)(, [a-z ]{3,20})?\.$",
    r"\{\"x\": -?[0-9]{1,3}(\.[0-9]{1,2})?\}",
    r"([A-Z][a-z]{2,6} ){1,3}[A-Z][a-z]{2,6}",
    r"(?i)[äöüß]{1,3}|[a-f0-9]{8}",
    r"\w[^\s\d@]{3,10}@[a-z]{2,8}\.(com|org)",
    "",
)
SQL = 'root ::= "SELECT " name (", " name){0,2} " FROM " name\nname ::= [a-z]{1,8}\n'
LISP = 'start: list\nlist: "(" item (" " item){0,3} ")"\nitem: ATOM | list\nATOM: /[a-z]{1,4}/'


def test_expressions_choices_and_grammars_are_met(llm: LLM) -> None:
    choices = ["red", "dark red", "green\n", '"blue"', "é😀"]
    sampling = [shaped(regex=pattern, seed=3) for pattern in EXPRESSIONS]
    sampling += [shaped(choice=choices, seed=seed) for seed in range(6)]
    sampling += [shaped(grammar=SQL, seed=1), shaped(200, grammar=LISP, seed=2), shaped(120, json_object=True, seed=6)]
    outputs = llm.generate(["Answer: "] * len(sampling), sampling, use_tqdm=False)
    texts = [output.outputs[0].text for output in outputs]
    assert {output.outputs[0].finish_reason for output in outputs} == {"stop"}
    for pattern, text in zip(EXPRESSIONS, texts, strict=False):
        assert re.fullmatch(pattern, text), (pattern, text)
    assert set(texts[len(EXPRESSIONS) : len(EXPRESSIONS) + 6]) <= set(choices)
    sql, lisp, anything = texts[-3:]
    assert re.fullmatch(r"SELECT [a-z]{1,8}(, [a-z]{1,8}){0,2} FROM [a-z]{1,8}", sql)
    assert lisp.count("(") == lisp.count(")") > 0
    assert isinstance(json.loads(anything), dict)


def test_each_of_several_choices_meets_it(llm: LLM) -> None:
    found = answers(llm, "Somebody: ", shaped(json=PERSON, n=6, seed=1))
    assert len({one.text for one in found}) > 1
    for one in found:
        assert one.finish_reason == "stop"
        jsonschema.validate(json.loads(one.text), PERSON)


def test_neighbours_are_as_without_constraints(llm: LLM) -> None:
    free = [
        SamplingParams(max_tokens=24, seed=seed, temperature=temperature)
        for seed, temperature in ((1, 0.0), (2, 1.0), (3, 0.7))
    ]
    prompts = ["The sea is", "Once upon", "def f(x):"]
    alone = [answer(llm, prompt, one) for prompt, one in zip(prompts, free, strict=True)]
    constrained = [shaped(json=PERSON, seed=4), shaped(choice=["a", "b"])]
    outputs = llm.generate([*prompts, "Somebody: ", "Pick: "], [*free, *constrained], use_tqdm=False)
    assert [output.outputs[0].token_ids for output in outputs[:3]] == [one.token_ids for one in alone]


def test_the_same_seed_gives_the_same_answer_alone_and_in_a_batch(llm: LLM) -> None:
    alone = answer(llm, "Somebody: ", shaped(json=PERSON, seed=11))
    outputs = llm.generate(["Somebody: "] * 5, [shaped(json=PERSON, seed=9 + at) for at in range(5)], use_tqdm=False)
    assert outputs[2].outputs[0].token_ids == alone.token_ids


def test_forbidden_tokens_have_no_probability(llm: LLM) -> None:
    one = answer(llm, "Pick: ", shaped(choice=["yes", "no"], logprobs=5, temperature=0))
    assert one.logprobs is not None
    for position, token_id in zip(one.logprobs, one.token_ids, strict=True):
        assert position[token_id].logprob > float("-inf")
    last = one.logprobs[-1]
    assert last[one.token_ids[-1]].logprob == 0.0  # nothing but the end was left
    assert min(entry.logprob for entry in last.values()) == float("-inf")


@pytest.mark.parametrize(
    "changes",
    [
        {"ignore_eos": True},
        {"min_tokens": 40},
        {"ignore_eos": True, "min_tokens": 40},
        {"logit_bias": {2: -100.0}},
        {"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 2.0},
        {"bad_words": ["yes"]},
        {"top_k": 1},
        {"top_p": 0.1, "min_p": 0.5},
        {"stop_token_ids": [198]},
        {"prompt_logprobs": 2, "logprobs": 0},
    ],
)
def test_an_answer_is_complete_and_ends_whatever_else_is_asked_for(llm: LLM, changes: dict[str, Any]) -> None:
    one = answer(llm, "Is it? ", shaped(choice=["yes", "yesterday"], seed=7, **changes))
    assert one.text in ("yes", "yesterday")
    assert (one.finish_reason, one.stop_reason) == ("stop", None)


def test_ignore_eos_goes_on_as_long_as_the_grammar_allows(llm: LLM) -> None:
    one = answer(llm, "Digits: ", shaped(20, regex="[0-9]+", ignore_eos=True))
    assert one.finish_reason == "length"
    assert len(one.token_ids) == 20
    assert one.text.isdecimal()


def test_stop_strings_end_it_earlier(llm: LLM) -> None:
    one = answer(llm, "Pick: ", shaped(choice=["abcdef"], stop=["cd"]))
    assert (one.text, one.finish_reason, one.stop_reason) == ("ab", "stop", "cd")


def test_max_tokens_cuts_it(llm: LLM) -> None:
    one = answer(llm, "Somebody: ", shaped(3, json=PERSON))
    assert one.finish_reason == "length"
    assert len(one.token_ids) == 3


def test_the_end_token_is_shown_on_request(llm: LLM) -> None:
    one = answer(llm, "Pick: ", shaped(choice=["yes"], include_stop_str_in_output=True, skip_special_tokens=False))
    assert one.text == "yes<|im_end|>"


def test_reasoning_comes_first(llm: LLM) -> None:
    sampling = shaped(400, choice=["A", "B"], starts_after="5", temperature=0)
    one = answer(llm, "1 2 3 4", sampling)
    _, marker, after = one.text.partition("5")
    assert (marker, one.finish_reason) == ("5", "stop")
    assert after in ("A", "B")


def test_a_contradiction_fails_by_name_and_alone(llm: LLM) -> None:
    digits = llm.get_tokenizer().encode("7", add_special_tokens=False)
    with pytest.raises(BadRequest, match="allowed_token_ids"):
        answer(llm, "Pick: ", shaped(choice=["yes"], allowed_token_ids=digits))
    assert answer(llm, "Pick: ", shaped(regex="[0-9]{3}", allowed_token_ids=digits)).text == "777"


def test_a_grammar_that_becomes_too_costly_ends_that_answer_alone(llm: LLM) -> None:
    ambiguous = "start: e\ne: e e | e e e | /[a-z]/ | "
    with pytest.raises(BadRequest, match="Too many items"):
        llm.generate(
            ["a ", "Free: "],
            [shaped(100, grammar=ambiguous, ignore_eos=True, logit_bias={2: -100.0}), SamplingParams(max_tokens=100)],
            use_tqdm=False,
        )
    assert answer(llm, "Pick: ", shaped(choice=["yes"])).text == "yes"


def test_what_no_answer_can_meet_is_refused_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(BadRequest, match="greater than maximum"):
        answer(llm, "x", shaped(json={"type": "integer", "minimum": 5, "maximum": 1}))
    with pytest.raises(BadRequest, match="use_beam_search"):
        shaped(choice=["a"], use_beam_search=True, n=2)


def test_preempted_answers_are_still_right(smollm2_path: Path) -> None:
    """A pool so small that sequences take turns; the answers are those of a roomy one."""
    sampling = [shaped(90, json=PERSON | {"minProperties": 0}, seed=seed, n=2) for seed in range(6)]
    prompts = [f"Record {number} about somebody: " * 3 for number in range(6)]
    with LLM(str(smollm2_path), max_num_seqs=12, max_model_len=256) as roomy:
        expected = roomy.generate(prompts, sampling, use_tqdm=False)
    with LLM(str(smollm2_path), max_num_seqs=12, max_model_len=256, kv_cache_memory_bytes="7M") as tight:
        found = tight.generate(prompts, sampling, use_tqdm=False)
    for one, other in zip(found, expected, strict=True):
        assert [choice.token_ids for choice in one.outputs] == [choice.token_ids for choice in other.outputs]
        for choice in one.outputs:
            if choice.finish_reason == "stop":
                jsonschema.validate(json.loads(choice.text), PERSON)
