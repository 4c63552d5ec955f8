"""Several texts that grow at the same time, drawn side by side on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.cli.remote import shown

_NARROWEST = 24
"""Columns of a terminal that one text needs; where there are fewer, texts stand below each other."""


def draw_side_by_side(pieces: Iterable[tuple[int, str]], texts: list[str]) -> None:
    """Draw `texts` as pieces come, each with the place of its text, and leave them there whole at the end.

    The texts have grown as far as they came, however this ends.
    """
    console = Console(highlight=False)
    with Live(console=console, vertical_overflow="ellipsis", refresh_per_second=12) as live:
        for index, piece in pieces:
            texts[index] += piece
            live.update(_table(texts, console.width))
        live.vertical_overflow = "visible"


def print_one_by_one(texts: Sequence[str], *, terminal: bool) -> None:
    for number, text in enumerate(texts, 1):
        if len(texts) > 1:
            print(f"--- {number} of {len(texts)} ---")
        print(shown(text) if terminal else text)


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
