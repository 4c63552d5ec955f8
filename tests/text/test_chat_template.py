from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import templates
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from headrace.core.errors import BadRequest, ConfigError
from headrace.hub.gguf import read_gguf_header
from headrace.text import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "wetter",
            "description": "Das Wetter für 'heute' <b>&</b>",
            "parameters": {"type": "object", "properties": {"ort": {"type": "string"}}},
        },
    }
]
DOCUMENTS = [{"title": "Straße", "text": "Über <x> & 'y'"}, {"id": "1", "title": "B"}]

HELLO = [{"role": "user", "content": "Hello"}]
SYSTEM = [{"role": "system", "content": " Be brief. "}, *HELLO]
TURNS = [
    *SYSTEM,
    {"role": "assistant", "content": "Hi!\nHow are you? 漢字 "},
    {"role": "user", "content": " well, <b>&amp;</b> 'you'? "},
]
CALLED = [
    *HELLO,
    {"role": "assistant", "tool_calls": [{"function": {"name": "wetter", "arguments": {"ort": "Köln"}}}]},
    {"role": "tool", "content": {"grad": 3}},
]
THOUGHT = [*HELLO, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi"}, {"role": "user", "content": "and?"}]


@pytest.fixture(scope="module")
def reference() -> PreTrainedTokenizerFast:
    """Any tokenizer of transformers: only its `apply_chat_template` is used."""
    return PreTrainedTokenizerFast(tokenizer_object=Backend(models.BPE()), **SPECIAL)


@pytest.mark.parametrize("continued", ["generation prompt", "neither", "continued"])
@pytest.mark.parametrize("messages", [HELLO, SYSTEM, TURNS, THOUGHT, THOUGHT[:2]])
@pytest.mark.parametrize("name", templates.ALL)
def test_prompts_equal_transformers(
    reference: PreTrainedTokenizerFast, name: str, messages: list[dict[str, Any]], continued: str
):
    options = {
        "add_generation_prompt": continued == "generation prompt",
        "continue_final_message": continued == "continued",
    }
    expected = reference.apply_chat_template(
        messages, chat_template=templates.ALL[name], tokenize=False, enable_thinking=False, **options
    )
    template = ChatTemplate(templates.ALL[name], SPECIAL)
    assert template.render(messages, variables={"enable_thinking": False}, **options) == expected


@pytest.mark.parametrize("messages", [SYSTEM, CALLED])
def test_prompts_with_tools_equal_transformers(reference: PreTrainedTokenizerFast, messages: list[dict[str, Any]]):
    expected = reference.apply_chat_template(
        messages, chat_template=templates.HEADERS, tools=TOOLS, tokenize=False, add_generation_prompt=True
    )
    assert ChatTemplate(templates.HEADERS, SPECIAL).render(messages, tools=TOOLS) == expected
    assert "für 'heute' <b>&</b>" in expected


def test_prompts_with_documents_equal_transformers(reference: PreTrainedTokenizerFast):
    expected = reference.apply_chat_template(
        TURNS, chat_template=templates.DOCUMENTS, documents=DOCUMENTS, tokenize=False, add_generation_prompt=True
    )
    assert ChatTemplate(templates.DOCUMENTS, SPECIAL).render(TURNS, documents=DOCUMENTS) == expected


def test_prompts_of_parts_equal_transformers(reference: PreTrainedTokenizerFast):
    messages = [{"role": "user", "content": [{"type": "text", "text": " one "}, {"type": "text", "text": "two"}]}]
    for options in ({"add_generation_prompt": True}, {"continue_final_message": True, "add_generation_prompt": False}):
        expected = reference.apply_chat_template(messages, chat_template=templates.TURNS, tokenize=False, **options)
        assert ChatTemplate(templates.TURNS, SPECIAL).render(messages, **options) == expected


def test_the_template_of_smollm2_equals_transformers(reference: PreTrainedTokenizerFast, smollm2_path: Path):
    source = read_gguf_header(smollm2_path).metadata["tokenizer.chat_template"]
    template = ChatTemplate(source, SPECIAL)
    for messages in (HELLO, SYSTEM, TURNS):
        expected = reference.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=True
        )
        assert template.render(messages) == expected
    assert template.content_format() == "string"


class TestNamedTemplates:
    named = {"default": "plain", "tool_use": "with {{ tools | length }}"}  # noqa: RUF012

    def test_tools_choose_tool_use(self):
        template = ChatTemplate(self.named, {})
        assert template.render(HELLO) == "plain"
        assert template.render(HELLO, tools=[]) == "plain"
        assert template.render(HELLO, tools=TOOLS) == "with 1"

    def test_without_tool_use_the_default_takes_tools(self):
        assert ChatTemplate({"default": "{{ tools | length }}"}, {}).render(HELLO, tools=TOOLS) == "1"

    def test_a_set_needs_a_default(self):
        with pytest.raises(ConfigError, match=r"named \['rag'\]"):
            ChatTemplate({"rag": "x"}, {})


class TestVariables:
    def test_special_tokens_are_variables_that_others_may_replace(self):
        template = ChatTemplate("{{ bos_token }}{{ mood }}", SPECIAL)
        assert template.render(HELLO) == "<s>"
        assert template.render(HELLO, variables={"mood": "ok", "bos_token": "^"}) == "^ok"

    def test_those_the_template_does_not_use_are_dropped(self):
        template = ChatTemplate("{% set seen = 1 %}{{ seen }}{{ self is defined }}", {})
        assert template.render(HELLO, variables={"seen": 2, "environment": 3, "other": 4}).startswith("1")

    def test_named_arguments_win(self):
        template = ChatTemplate("{{ messages | length }}{{ add_generation_prompt }}{{ tools }}", {})
        variables = {"messages": [], "add_generation_prompt": True, "tools": 1}
        assert template.render(HELLO, add_generation_prompt=False, variables=variables) == "1FalseNone"

    def test_the_messages_of_the_caller_stay_as_they_are(self):
        messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
        template = ChatTemplate("{{ messages[-1].content[0].text }}", {})
        assert template.render(messages, add_generation_prompt=False, continue_final_message=True) == "a"
        assert messages == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]

    def test_the_date_can_be_asked_for(self):
        assert ChatTemplate("{{ strftime_now('%Y') | int > 2000 }}", {}).render(HELLO) == "True"


class TestContinuing:
    open_end = {"add_generation_prompt": False, "continue_final_message": True}  # noqa: RUF012

    def test_a_trimming_template_trims_the_end_too(self):
        messages = [*HELLO, {"role": "assistant", "content": "  The answer is  "}]
        prompt = ChatTemplate(templates.HEADERS, SPECIAL).render(messages, **self.open_end)
        assert prompt.endswith("<|end_header_id|>\n\nThe answer is")

    def test_the_end_is_kept_where_the_template_keeps_it(self):
        messages = [*HELLO, {"role": "assistant", "content": "The answer is  "}]
        prompt = ChatTemplate(templates.CHATML, SPECIAL).render(messages, **self.open_end)
        assert prompt.endswith("assistant\nThe answer is  ")

    def test_text_that_stands_earlier_too_is_no_trap(self):
        messages = [{"role": "user", "content": "yes"}, {"role": "assistant", "content": "yes"}]
        prompt = ChatTemplate(templates.CHATML, SPECIAL).render(messages, **self.open_end)
        assert prompt == "<|im_start|>user\nyes<|im_end|>\n<|im_start|>assistant\nyes"

    def test_an_empty_message_can_be_continued(self):
        messages = [*HELLO, {"role": "assistant", "content": ""}]
        prompt = ChatTemplate(templates.CHATML, SPECIAL).render(messages, **self.open_end)
        assert prompt.endswith("<|im_start|>assistant\n")

    def test_not_together_with_a_generation_prompt(self):
        with pytest.raises(BadRequest, match="must not both be true") as caught:
            ChatTemplate(templates.CHATML, SPECIAL).render(HELLO, continue_final_message=True)
        assert caught.value.parameter == "continue_final_message"

    @pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": None}], [{"role": "assistant"}]])
    def test_a_message_without_text_cannot_be_continued(self, messages: list[dict[str, Any]]):
        with pytest.raises(BadRequest, match="content is text"):
            ChatTemplate("x", {}).render(messages, **self.open_end)

    def test_a_template_that_does_not_show_the_message_is_told(self):
        with pytest.raises(BadRequest, match="does not show the content"):
            ChatTemplate("nothing", {}).render(HELLO, **self.open_end)


class TestRefusals:
    def test_the_reason_is_the_templates_own(self):
        with pytest.raises(BadRequest) as caught:
            ChatTemplate(templates.INST, SPECIAL).render([{"role": "assistant", "content": "Hi"}])
        assert caught.value.message == "Conversation roles must alternate user/assistant/user/assistant/..."
        assert caught.value.parameter == "messages"

    @pytest.mark.parametrize(
        "source",
        [
            "{{ messages[0].content + 1 }}",
            "{{ messages.nothing.at_all }}",
            "{{ 1 / 0 }}",
            "{{ undefined_function() }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        ],
    )
    def test_a_failing_template_is_no_crash(self, source: str):
        with pytest.raises(BadRequest, match="The chat template failed on these messages: ") as caught:
            ChatTemplate(source, {}).render(HELLO)
        assert caught.value.parameter == "messages"

    @pytest.mark.parametrize("source", ["a\n{% for %}", "a\n{{ 'x }}", "a\n{% endif %}", "a\n{{ x | no_such_filter }}"])
    def test_a_syntax_error_is_found_at_once(self, source: str):
        with pytest.raises(ConfigError, match="syntax error at line 2"):
            ChatTemplate(source, {})


class TestSandbox:
    @pytest.mark.parametrize(
        "source",
        [
            "{{ messages.append(1) }}",
            "{{ ''.__class__.__mro__ }}",
            "{{ raise_exception.__globals__.keys() }}",
            "{{ messages[0].update({'role': 'x'}) }}",
            "{% set x = cycler.__init__.__globals__.os.system('true') %}{{ x }}",
        ],
    )
    def test_python_is_out_of_reach(self, source: str):
        messages = [dict(HELLO[0])]
        with pytest.raises(BadRequest):
            ChatTemplate(source, {}).render(messages)
        assert messages == HELLO

    @pytest.mark.parametrize(
        "source",
        [
            "{% for i in range(10**9) %}x{% endfor %}",
            "{{ 'a' * 10**10 }}",
            "{{ 10**10 * 'a' }}",
            "{{ [1] * 10**10 }}",
            "{{ 10**(10**10) }}",
            "{{ (2**10000) * (2**10000) }}",
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{{ '%9999999999d' % 1 }}",
            "{{ '%*d' % (9999999999, 1) }}",
            "{{ '{:9999999999}'.format(1) }}",
            "{{ '{:{}}'.format(1, 9999999999) }}",
            "{{ '%9999999999d' | format(1) }}",
            "{{ 'a' | center(10**10) }}",
            "{{ 'a' | center(9999999999) }}",
            "{{ 'a' | center(width=10**10) }}",
            "{{ [1] | batch(10**10, 'x') | list }}",
            "{{ [1] | slice(10**10) | list }}",
            "{{ [1] | tojson(indent=10**10) }}",
            "{{ 'a\nb' | indent(10**10) }}",
            "{{ 'a'.ljust(10**10) }}",
            "{{ 'a'.zfill(10**10) }}",
            "{{ lipsum(10**6) }}",
            "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 99999 }}{% endfor %}{% endfor %}",
        ],
    )
    def test_one_expression_cannot_fill_the_memory(self, source: str):
        with pytest.raises(BadRequest):
            ChatTemplate(source, {}).render(HELLO)

    def test_ordinary_arithmetic_and_formats_work(self):
        source = "{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ 3 * 1.5 }}{{ '%05.1f' % 2.25 }}{{ '{:>4}'.format(7) }}{{ [1] + [2] }}"
        assert ChatTemplate(source, {}).render(HELLO) == "ababab10244.5002.2   7[1, 2]"

    def test_filters_with_a_bounded_width_work_as_before(self):
        source = (
            "{{ 'a\nb' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a' | center(5) }}|{{ 'a\nb' | indent('> ') }}"
        )
        assert ChatTemplate(source, {}).render(HELLO) == "a\n    b|  a\n  b|  a  |a\n> b"


def test_threads_share_a_template():
    template = ChatTemplate(templates.CHATML, SPECIAL)
    conversations = [[{"role": "user", "content": str(number)}] for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        prompts = list(pool.map(template.render, conversations))
    assert prompts == [template.render(messages) for messages in conversations]
