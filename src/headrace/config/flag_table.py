"""The flags as Markdown, for the README: `python -m headrace.config.flag_table`."""

from __future__ import annotations

from itertools import groupby

from headrace.config.help import default_text, metavar
from headrace.config.knobs import Knob, all_knobs, flag_of


def render_flag_table() -> str:
    """One table per section, in the order of `--help`."""
    parts = []
    for title, knobs in groupby(all_knobs().values(), key=lambda knob: knob.title):
        rows = "\n".join(_row(knob) for knob in knobs)
        parts.append(f"**{title}**\n\n| Flag | Default | Meaning |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(knob: Knob) -> str:
    rules = knob.rules
    if rules.kind is bool:
        flag = knob.flag.replace("--", "--[no-]", 1)
    else:
        values = "|".join(str(choice) for choice in rules.choices) or metavar(knob)
        flag = f"{knob.flag} {values}"
    default = default_text(knob)
    others = [flag_of(rules.alias)] if rules.alias else []
    others += [rules.variable] if rules.variable else []
    also = "".join(f" Also `{other}`." for other in others)
    cells = [f"`{flag}`", f"`{default}`" if default else "", knob.help + also]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(render_flag_table(), end="")
