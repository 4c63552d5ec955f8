from __future__ import annotations

import pytest
import templates

from headrace.text import ChatTemplate

PARTS = {
    "content by name": "{% for m in messages %}{% for p in m['content'] %}{{ p.text }}{% endfor %}{% endfor %}",
    "content by attribute": "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
    "under a test": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
    "a slice of the messages": "{% for m in messages[1:] %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}",
    "a slice of the content": "{% for m in messages %}{% for p in m.content[1:] %}{{ p }}{% endfor %}{% endfor %}",
    "filtered messages": "{% for m in messages | list %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}",
    "filtered content": "{% for m in messages %}{% for p in m.content | selectattr('type', 'equalto', 'text') %}"
    "{{ p }}{% endfor %}{% endfor %}",
    "messages by another name": "{% set turns = messages %}{% set some = turns[1:] %}"
    "{% for m in some %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}",
    "messages assigned to themselves": "{% set messages = messages[1:] %}"
    "{% for m in messages %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}",
    "a variable named content": "{% for m in messages %}{% set content = m.content %}"
    "{% for p in content %}{{ p.text }}{% endfor %}{% endfor %}",
    "a macro": "{% macro show(parts) %}{% for p in parts %}{{ p.text }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ show(m.content) }}{% endfor %}",
    "a macro, second argument": "{% macro show(a, parts) %}{% for p in parts %}{{ p.text }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ show(1, m['content']) }}{% endfor %}",
    "a macro, argument by name": "{% macro show(parts) %}{% for p in parts %}{{ p.text }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ show(parts=m.content) }}{% endfor %}",
    "gemma-like": templates.TURNS,
}

TEXT = {
    "text only": templates.CHATML,
    "llama-like": templates.HEADERS,
    "mistral-like": templates.INST,
    "a variable of another name": "{% for m in messages %}{% set body = m.content %}"
    "{% for p in body %}{{ p.text }}{% endfor %}{% endfor %}",
    "content of the first message": "{% for p in messages[0]['content'] %}{{ p.text }}{% endfor %}",
    "content by get": "{% for m in messages %}{% for p in m.get('content') %}{{ p.text }}{% endfor %}{% endfor %}",
    "filters only": "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    "tool calls": "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c }}{% endfor %}{% endfor %}",
    "content as parameter of a macro": "{% macro f(content) %}{% for p in content %}{{ p }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ f(m.parts) }}{% endfor %}",
    "a macro over another parameter": "{% macro show(a, b) %}{% for p in b %}{{ p }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ show(m.content, []) }}{% endfor %}",
    "two loop variables": "{% for a, b in messages %}{% for p in a.content %}{{ p }}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("name", PARTS)
def test_a_loop_over_the_content_means_parts(name: str):
    assert ChatTemplate(PARTS[name], {}).content_format() == "openai"


@pytest.mark.parametrize("name", TEXT)
def test_anything_else_means_text(name: str):
    assert ChatTemplate(TEXT[name], {}).content_format() == "string"


def test_of_a_set_the_default_decides():
    assert ChatTemplate({"default": TEXT["text only"], "tool_use": PARTS["a macro"]}, {}).content_format() == "string"
