"""Whether a chat template takes message content as text or as a list of parts, told from its syntax tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from jinja2 import nodes

ContentFormat = Literal["string", "openai"]

_MESSAGES = "messages"
_CONTENT = "content"


def detect_content_format(tree: nodes.Template) -> ContentFormat:
    """`openai` if the template goes through the parts of a message's content, else `string`.

    It does so by looping over the content of a message that it got by looping over the messages, over a variable
    named `content` outside of macros, or in a macro over the parameter that it calls with the content.
    """
    messages = _message_variables(tree)
    loops = list(tree.find_all(nodes.For))
    if any(_is_content(loop.iter, message) for loop in loops for message in messages):
        return "openai"
    macros = list(tree.find_all(nodes.Macro))
    inside_macros = {id(loop) for macro in macros for loop in macro.find_all(nodes.For)}
    if any(_is_variable(loop.iter, _CONTENT) for loop in loops if id(loop) not in inside_macros):
        return "openai"
    if any(_loops_over_argument(tree, macro, messages) for macro in macros):
        return "openai"
    return "string"


def _message_variables(tree: nodes.Template) -> set[str]:
    """The names that loops over the messages give to one message."""
    assignments = [
        (node.target.name, source.name)
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name) and isinstance(source := _core(node.node), nodes.Name)
    ]
    lists = {_MESSAGES}
    while new := {name for name, source in assignments if source in lists} - lists:
        lists |= new
    return {
        loop.target.name
        for loop in tree.find_all(nodes.For)
        if isinstance(loop.target, nodes.Name) and any(_is_variable(_core(loop.iter), name) for name in lists)
    }


def _loops_over_argument(tree: nodes.Template, macro: nodes.Macro, messages: set[str]) -> bool:
    looped_over = {core.name for loop in macro.find_all(nodes.For) if isinstance(core := _core(loop.iter), nodes.Name)}
    return any(
        parameter in looped_over and any(_is_content(argument, message) for message in messages)
        for call in tree.find_all(nodes.Call)
        if _is_variable(call.node, macro.name)
        for parameter, argument in _arguments(macro, call)
    )


def _arguments(macro: nodes.Macro, call: nodes.Call) -> Iterator[tuple[str, nodes.Expr]]:
    yield from ((parameter.name, argument) for parameter, argument in zip(macro.args, call.args, strict=False))
    yield from ((keyword.key, keyword.value) for keyword in call.kwargs)


def _core(node: nodes.Node | None) -> nodes.Node | None:
    """The expression inside filters, tests and slices."""
    while True:
        match node:
            case nodes.Filter() | nodes.Test():
                node = node.node
            case nodes.Getitem(arg=nodes.Slice()):
                node = node.node
            case _:
                return node


def _is_variable(node: nodes.Node | None, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def _is_content(node: nodes.Node, message: str) -> bool:
    match _core(node):
        case nodes.Getattr(node=owner, attr="content") | nodes.Getitem(node=owner, arg=nodes.Const(value="content")):
            return _is_variable(owner, message)
    return False
