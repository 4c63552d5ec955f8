"""Renders a conversation to the text of a prompt, by the model's own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template, TemplateSyntaxError
from jinja2.exceptions import TemplateError
from jinja2.meta import find_undeclared_variables

from headrace.core.errors import BadRequest, ConfigError
from headrace.text.content_format import ContentFormat, detect_content_format
from headrace.text.template_sandbox import MAX_ITEMS, TemplateRefusal, TemplateSandbox

_DEFAULT = "default"
_TOOL_USE = "tool_use"

_END_MARK = "HEADRACE-END-OF-FINAL-MESSAGE-6d1f0c "
"""Put behind the final message to find its end in the prompt. The space at its end shows whether content is trimmed."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    template: Template
    variables: frozenset[str]
    content_format: ContentFormat


class ChatTemplate:
    """A compiled chat template, or a set of them by name; may be used by several threads at once.

    Of a set, `tool_use` renders conversations with tools and `default` all others. `special_tokens` are variables
    of the template (`bos_token`, ...). `content_format` overrides what the templates show of themselves. Raises
    `ConfigError` if a template has a syntax error or a set has no `default`.
    """

    def __init__(
        self,
        template: str | dict[str, str],
        special_tokens: dict[str, str],
        *,
        content_format: ContentFormat | None = None,
    ) -> None:
        named = {_DEFAULT: template} if isinstance(template, str) else template
        if _DEFAULT not in named:
            raise ConfigError(f"The chat templates are named {sorted(named)}; one must be named {_DEFAULT!r}.")
        sandbox = TemplateSandbox()
        self._compiled = {name: _compile(sandbox, name, source) for name, source in named.items()}
        self._special_tokens = special_tokens
        self._content_format = content_format

    def content_format(self, *, tools: bool = False) -> ContentFormat:
        """What message content is to be: text, or a list of parts as OpenAI has them. With `tools` another template of
        the set may be the one that renders.
        """
        return self._content_format or self._choose(tools).content_format

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for `messages`.

        `continue_final_message` ends it right behind the content of the last message, for the model to go on with
        it. `variables` are further variables of the template; those that it does not use are dropped, and the named
        arguments win over those of the same name. Raises `BadRequest` with the template's own reason if it refuses the
        conversation or fails on it, and if the last message cannot be continued.
        """
        if continue_final_message and add_generation_prompt:
            raise BadRequest(
                "continue_final_message and add_generation_prompt must not both be true.",
                parameter="continue_final_message",
            )
        compiled = self._choose(bool(tools))
        known = {name: value for name, value in (variables or {}).items() if name in compiled.variables}
        values = self._special_tokens | known
        values |= {"tools": tools or None, "documents": documents, "add_generation_prompt": add_generation_prompt}
        if not continue_final_message:
            return _render(compiled.template, values | {"messages": messages})
        return _cut_at_mark(_render(compiled.template, values | {"messages": _mark_end(messages)}))

    def _choose(self, tools: bool) -> _Compiled:
        return self._compiled[_TOOL_USE if tools and _TOOL_USE in self._compiled else _DEFAULT]


def _compile(sandbox: TemplateSandbox, name: str, source: str) -> _Compiled:
    try:
        tree = sandbox.parse(source)
        template = sandbox.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"The chat template ({name}) has a syntax error at line {error.lineno}: {error.message}"
        ) from None
    return _Compiled(template, frozenset(find_undeclared_variables(tree)), detect_content_format(tree))


def _render(template: Template, values: dict[str, Any]) -> str:
    pieces: list[str] = []
    room = MAX_ITEMS
    try:
        for piece in template.generate(values):
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                raise TemplateError(f"the prompt would exceed {MAX_ITEMS} characters")
    except TemplateRefusal as refusal:
        raise BadRequest(str(refusal), parameter="messages") from None
    except Exception as error:  # a template is a program: given odd input it can fail in any way
        reason = str(error) or type(error).__name__
        raise BadRequest(f"The chat template failed on these messages: {reason}", parameter="messages") from error
    return "".join(pieces)


def _mark_end(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`messages` with the mark behind the content of the last one."""
    last = messages[-1] if messages else {}
    match last.get("content"):
        case str(text):
            content: Any = text + _END_MARK
        case [*parts, {"text": str(text)} as final_part]:
            content = [*parts, {**final_part, "text": text + _END_MARK}]
        case _:
            raise BadRequest(
                "continue_final_message needs a last message whose content is text.",
                parameter="continue_final_message",
            )
    return [*messages[:-1], {**last, "content": content}]


def _cut_at_mark(prompt: str) -> str:
    end = prompt.rfind(_END_MARK.rstrip())
    if end < 0:
        raise BadRequest(
            "The chat template does not show the content of the last message, so it cannot be continued.",
            parameter="continue_final_message",
        )
    trimmed = not prompt.startswith(_END_MARK, end)
    return prompt[:end].rstrip() if trimmed else prompt[:end]
