"""How `--help` looks: two columns on a narrow terminal, long flags on a line of their own, never cut in the middle."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from headrace.config.knobs import Knob

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_COLUMN = 28
_WIDEST = 100


class WrappedFormatter:
    """A cyclopts help formatter."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        if not panel.entries:
            return
        width = min(console.width, _WIDEST)
        lines = [f"{panel.title}:"]
        for entry in panel.entries:
            lines += _entry_lines(_label(entry), _plain_text(entry, console), width)
        console.print("\n".join([*lines, ""]), highlight=False, markup=False, soft_wrap=True)


def describe(knob: Knob) -> str:
    """The help of a knob with its choices, default and extra variable."""
    rules = knob.rules
    notes = []
    if rules.choices and metavar(knob) == "CHOICE":
        notes.append("/".join(str(choice) for choice in rules.choices))
    if default := default_text(knob):
        notes.append(f"default: {default}")
    if rules.variable is not None:
        notes.append(f"also {rules.variable}")
    return f"{knob.help} [{'; '.join(notes)}]" if notes else knob.help


def default_text(knob: Knob) -> str:
    """The default as one would type it; empty where nothing is the default."""
    if knob.default is None or knob.default in ((), {}, ""):
        return ""
    if isinstance(knob.default, bool):
        return "on" if knob.default else "off"
    if isinstance(knob.default, float):
        return f"{knob.default:g}"
    return " ".join(knob.default) if isinstance(knob.default, tuple) else str(knob.default)


def metavar(knob: Knob) -> str:
    """What stands for the value in `--flag VALUE`."""
    rules = knob.rules
    if rules.choices:
        listed = "|".join(str(choice) for choice in rules.choices)
        return listed if len(listed) < 20 else "CHOICE"
    if rules.is_list:
        return "TEXT ..."
    if rules.is_mapping:
        return "JSON"
    if rules.size:
        return "SIZE"
    return {int: "INT", float: "NUMBER", str: "TEXT"}.get(rules.kind, "PATH")


def _label(entry: HelpEntry) -> str:
    names = ", ".join(entry.positive_names + entry.positive_shorts)
    if entry.negative_names:
        return names.replace("--", "--[no-]", 1)
    return f"{names} {entry.metavar}" if entry.metavar else names


def _plain_text(entry: HelpEntry, console: Console) -> str:
    """Descriptions are rich renderables; rendered on one endless line they give their text back."""
    if entry.description is None:
        return ""
    options = console.options.update(width=10_000, no_wrap=True)
    return "".join(segment.text for segment in console.render(entry.description, options)).strip()


def _entry_lines(label: str, text: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(text, width - _COLUMN, break_on_hyphens=False)
    first = f"  {label}"
    if len(first) + 2 <= _COLUMN and wrapped:
        return [first.ljust(_COLUMN) + wrapped[0], *(" " * _COLUMN + line for line in wrapped[1:])]
    return [first, *(" " * _COLUMN + line for line in wrapped)]
