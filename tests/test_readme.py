"""What the README says of the flags is what the parser does."""

from __future__ import annotations

from pathlib import Path

from headrace.config.flag_table import render_flag_table

README = Path(__file__).parent.parent / "README.md"


def test_the_flag_table_is_the_parsers() -> None:
    assert render_flag_table().strip() in README.read_text()
