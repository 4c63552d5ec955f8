"""Second names of fields: `--skip-tokenizer-init` is `--tokens-only`."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.flag_table import render_flag_table
from headrace.config.load import load_config
from headrace.core.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], False),
        (["--tokens-only"], True),
        (["--skip-tokenizer-init"], True),
        (["--skip_tokenizer_init"], True),
        (["--tokens-only", "--no-skip-tokenizer-init"], False),
    ],
)
def test_as_flags(arguments: list[str], wanted: bool) -> None:
    assert load_config(arguments, {}).model.tokens_only is wanted


def test_as_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("skip-tokenizer-init: true\n")
    assert load_config(["--config", str(file)], {}).model.tokens_only
    file.write_text("skip-tokenizer-init: true\ntokens-only: false\n")
    with pytest.raises(ConfigError, match="stands twice"):
        load_config(["--config", str(file)], {})


@pytest.mark.parametrize("flag", ["--tokenizer", "--chat-template"])
def test_what_would_be_ignored_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"--tokens-only and {flag} exclude each other"):
        load_config(["--tokens-only", flag, "x"], {})


def test_in_the_table() -> None:
    (row,) = [row for row in render_flag_table().splitlines() if "tokens-only" in row]
    assert "Also `--skip-tokenizer-init`." in row


@pytest.mark.parametrize("flag", ["--enable-scale-out", "--no-enable-scale-out"])
def test_what_is_always_open_may_be_asked_for(flag: str) -> None:
    assert load_config([flag], {}) == load_config([], {})
