"""The Jinja2 environment of chat templates: what they may call, and how much they may ask for.

A template comes with a model from anywhere, so it must not be able to reach Python's internals; Jinja2's sandbox sees
to that, and bounds `range`. The limits here stop single expressions from filling the memory. They are no defence
against a template that was built to exhaust the machine step by step: the caller bounds the time, and only operators
may let templates in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sized
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_ITEMS = 1 << 24
"""Most characters or items that one expression may make."""

_MAX_BITS = 1 << 14
_MAX_WIDTH = 10_000
_WIDTH_FILTERS = ("batch", "center", "indent", "slice")
"""Built-in filters whose first argument says how much they add."""
_WIDE_FORMAT = re.compile(r"\d{5}|\*|:[^}]*\{")
"""A field width of five digits, or one that is itself an argument."""


class TemplateRefusal(TemplateError):
    """The template refused its input by `raise_exception`; the message is the template's own."""


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Jinja2 as chat templates expect it, with limits. Raises `SecurityError` where one is passed."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols])
        self.globals.pop("lipsum")  # filler text, any amount of it
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.filters |= {"tojson": _to_json, "format": _format} | {name: _narrow(name) for name in _WIDTH_FILTERS}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_size(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        padding = isinstance(obj, str) and attr in {"center", "expandtabs", "ljust", "rjust", "zfill"}
        return not padding and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped


class GenerationTag(Extension):
    """`{% generation %}`: marks what the model wrote, for training; here it renders its body."""

    tags = {"generation"}  # noqa: RUF012 (declared so by Jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRefusal(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models saw it in training: characters as they are, and no HTML escapes as in Jinja2's own filter."""
    if indent is not None and indent > _MAX_WIDTH:
        raise SecurityError(f"the indent of tojson must not exceed {_MAX_WIDTH}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _format(form: str, *arguments: Any, **keywords: Any) -> str:
    _check_format(form)
    return FILTERS["format"](form, *arguments, **keywords)


def _narrow(name: str) -> Callable[..., Any]:
    """The built-in filter of that name, with its width bounded."""
    built_in = FILTERS[name]

    @wraps(built_in)
    def narrow(*arguments: Any, **keywords: Any) -> Any:
        for width in (*arguments[1:], *keywords.values()):
            if (isinstance(width, int) and width > _MAX_WIDTH) or (isinstance(width, str) and len(width) > _MAX_WIDTH):
                raise SecurityError(f"the width of {name} must not exceed {_MAX_WIDTH}")
        return built_in(*arguments, **keywords)

    return narrow


def _check_size(operator: str, left: Any, right: Any) -> None:
    size = bits = 0
    match operator, left, right:
        case "%", str(), _:
            _check_format(left)
        case "+", Sized(), Sized():
            size = len(left) + len(right)
        case ("*", Sized(), int()) | ("*", int(), Sized()):
            items, times = (left, right) if isinstance(left, Sized) else (right, left)
            size = len(items) * times
        case "*", int(), int():
            bits = left.bit_length() + right.bit_length()
        case "**", int(), int():
            bits = left.bit_length() * max(right, 0)
    if size > MAX_ITEMS or bits > _MAX_BITS:
        raise SecurityError(f"the result of {operator!r} would be too large")


def _check_format(form: str) -> None:
    if _WIDE_FORMAT.search(form):
        raise SecurityError("a format must not have a field wider than 9999 characters")
