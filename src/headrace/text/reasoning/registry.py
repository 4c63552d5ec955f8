"""The formats of reasoning by the names that users of vLLM give them."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.text.names import by_name
from headrace.text.reasoning.format import ReasoningFormat

_SWITCH = ("enable_thinking",)


def _think(*, opened: bool = True, switches: tuple[str, ...] = (), on: bool = True) -> ReasoningFormat:
    return ReasoningFormat(
        begins=("<think>",), ends=("</think>",), opened=opened, switches=switches, on=on, special_tokens=True
    )


_GRANITE = ReasoningFormat(
    begins=("Here is my thought process:", "Here's my thought process:"),
    ends=("Here is my response:", "Here's my response:"),
    opened=False,
)

REASONING_FORMATS: Mapping[str, ReasoningFormat] = {
    "deepseek_r1": _think(),
    "deepseek_v3": _think(switches=("thinking", "enable_thinking"), on=False),
    "ernie45": _think(switches=_SWITCH),
    "glm45": _think(switches=_SWITCH),
    "glm47": _think(switches=_SWITCH),
    "granite": _GRANITE,
    "granite_thinking_parser": _GRANITE,
    "holo2": _think(switches=("thinking", "enable_thinking")),
    "kimi_k2": _think(switches=("thinking", "enable_thinking")),
    "mimo": _think(switches=_SWITCH),
    "minimax_m2": _think(),
    "mistral": ReasoningFormat(begins=("[THINK]",), ends=("[/THINK]",), opened=False, special_tokens=True),
    "nemotron_v3": _think(switches=_SWITCH),
    "olmo3": _think(),
    "qwen3": _think(switches=_SWITCH),
    "seed_oss": ReasoningFormat(begins=("<seed:think>",), ends=("</seed:think>",), opened=True, special_tokens=True),
    "step3": _think(),
}


def reasoning_format(name: str) -> ReasoningFormat:
    """Raises `ConfigError`, with the closest names, if there is no such one."""
    return by_name(REASONING_FORMATS, name, flag="--reasoning-parser")
