"""The formats of tool calls by the names that users of vLLM give them, and those that a plug-in adds."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from headrace.core.errors import ConfigError
from headrace.text.names import by_name
from headrace.text.tools.format import ToolFormat
from headrace.text.tools.hermes import GRANITE_20B, HERMES, INTERNLM
from headrace.text.tools.lists import GRANITE, JAMBA, PHI4_MINI
from headrace.text.tools.llama import LLAMA_JSON
from headrace.text.tools.mistral import MISTRAL
from headrace.text.tools.pythonic import PYTHONIC
from headrace.text.tools.sections import DEEPSEEK_V3, DEEPSEEK_V31, KIMI_K2
from headrace.text.tools.tagged import GLM45, MINIMAX_M2, QWEN3_CODER, SEED

TOOL_FORMATS: Mapping[str, ToolFormat] = {
    "deepseek_v3": DEEPSEEK_V3,
    "deepseek_v31": DEEPSEEK_V31,
    "glm45": GLM45,
    "glm47": GLM45,
    "granite": GRANITE,
    "granite-20b-fc": GRANITE_20B,
    "granite4": HERMES,
    "hermes": HERMES,
    "internlm": INTERNLM,
    "jamba": JAMBA,
    "kimi_k2": KIMI_K2,
    "llama3_json": LLAMA_JSON,
    "llama4_json": LLAMA_JSON,
    "llama4_pythonic": PYTHONIC,
    "minimax_m2": MINIMAX_M2,
    "mistral": MISTRAL,
    "phi4_mini_json": PHI4_MINI,
    "pythonic": PYTHONIC,
    "qwen3_coder": QWEN3_CODER,
    "qwen3_json": HERMES,
    "qwen3_xml": QWEN3_CODER,
    "seed_oss": SEED,
}

_PLUGIN_NAME = "TOOL_FORMATS"


def tool_format(name: str, plugin: Path | None = None) -> ToolFormat:
    """The format `name`, of those known here and those of the Python file `plugin`, whose own win.

    The file is run. Raises `ConfigError` for a name that nobody knows, and for a plug-in that cannot be used.
    """
    known = TOOL_FORMATS if plugin is None else {**TOOL_FORMATS, **_formats_of(plugin)}
    return by_name(known, name, flag="--tool-call-parser")


def _formats_of(plugin: Path) -> Mapping[str, ToolFormat]:
    """What a plug-in defines as `TOOL_FORMATS`."""
    spec = importlib.util.spec_from_file_location("headrace_tool_parser_plugin", plugin)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--tool-parser-plugin: {plugin} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is a program of somebody else's
        raise ConfigError(f"--tool-parser-plugin: {plugin} failed: {type(error).__name__}: {error}") from error
    formats = vars(module).get(_PLUGIN_NAME)
    if not isinstance(formats, Mapping) or not all(isinstance(value, ToolFormat) for value in formats.values()):
        raise ConfigError(f"--tool-parser-plugin: {plugin} must define {_PLUGIN_NAME}, a dict of ToolFormat by name.")
    return formats
