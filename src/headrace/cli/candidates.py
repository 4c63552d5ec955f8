"""Several texts that grow at the same time, drawn side by side on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.cli.remote import shown
from headrace.client import Completion

_NARROWEST = 24
"""Columns of a terminal that one text needs; where there are fewer, texts stand below each other."""


def draw_side_by_side(chunks: Iterable[Completion], count: int) -> None:
    """Draw the `count` choices as chunks of them come, and leave them there whole at the end."""
    texts = [""] * count
    console = Console(highlight=False)
    with Live(console=console, vertical_overflow="ellipsis", refresh_per_second=12) as live:
        for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
            live.update(_table(texts, console.width))
        live.vertical_overflow = "visible"


def _table(texts: list[str], width: int) -> Table:
    titles = [f"{number} of {len(texts)}" for number in range(1, len(texts) + 1)]
    table = Table(expand=True, show_header=width >= _NARROWEST * len(texts), show_lines=True)
    if not table.show_header:
        table.add_column()
        for title, text in zip(titles, texts, strict=True):
            table.add_row(Text(f"{title}\n{shown(text)}"))
        return table
    for title in titles:
        table.add_column(title, ratio=1, overflow="fold")
    table.add_row(*(Text(shown(text)) for text in texts))
    return table
