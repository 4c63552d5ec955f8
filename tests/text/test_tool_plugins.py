"""Formats of tool calls that somebody else wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from tool_texts import Call, calls_of, read

from headrace.core.errors import ConfigError
from headrace.text.tools import TOOL_FORMATS, tool_format

PLUGIN = '''
from headrace.text.tools import CallArguments, CallBegun, ContentText, ToolFormat


class Shouting:
    """CALL f: the rest of the answer is its arguments."""

    def __init__(self, functions):
        self._text = ""

    def push(self, text):
        self._text += text
        return []

    def finish(self):
        if not self._text.startswith("CALL "):
            return [ContentText(self._text)]
        name, _, arguments = self._text.removeprefix("CALL ").partition(":")
        return [CallBegun(name), CallArguments(arguments)]


TOOL_FORMATS = {"shouting": ToolFormat(parser=Shouting), "hermes": ToolFormat(parser=Shouting)}
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "shouting.py"
    file.write_text(PLUGIN)
    return file


@pytest.mark.parametrize("name", ["shouting", "hermes"])
def test_a_plugin_adds_formats_and_replaces_those_of_the_same_name(plugin: Path, name: str):
    events = read(tool_format(name, plugin).parser([]), "CALL f:", '{"a": 1}')
    assert calls_of(events) == [Call("f", {"a": 1})]


def test_those_known_here_stay_and_are_not_changed(plugin: Path):
    assert tool_format("mistral", plugin) is TOOL_FORMATS["mistral"]
    assert tool_format("hermes") is TOOL_FORMATS["hermes"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("x = 1", "must define TOOL_FORMATS"),
        ("TOOL_FORMATS = {'a': 1}", "must define TOOL_FORMATS"),
    ],
)
def test_a_plugin_that_cannot_be_used(tmp_path: Path, text: str, reason: str):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=f"--tool-parser-plugin: .*{reason}"):
        tool_format("hermes", tmp_path / "broken.py")


@pytest.mark.parametrize("name", ["missing.py", "missing.txt"])
def test_a_plugin_that_is_not_there(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="--tool-parser-plugin"):
        tool_format("hermes", tmp_path / name)


def test_an_unknown_name_is_answered_with_those_like_it():
    with pytest.raises(ConfigError, match=r"--tool-call-parser: there is no 'hermess'\. Did you mean hermes\?"):
        tool_format("hermess")
