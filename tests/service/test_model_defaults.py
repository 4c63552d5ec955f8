"""What a model brings along: sampling values and end tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.errors import ConfigError
from headrace.hub import Checkpoint
from headrace.service.defaults import eos_token_ids, sampling_defaults


@pytest.fixture
def checkpoint(smollm2: Checkpoint) -> Checkpoint:
    values = {"temperature": 0.6, "top_p": None, "do_sample": True, "max_new_tokens": 50, "eos_token_id": [2, 7, 2]}
    return replace(smollm2, generation_config=values)


def test_only_sampling_values_that_are_set(checkpoint: Checkpoint) -> None:
    assert sampling_defaults(checkpoint) == {"temperature": 0.6, "max_new_tokens": 50}


def test_override_wins_and_may_clear(checkpoint: Checkpoint) -> None:
    override = {"temperature": 0.1, "top_k": 5, "max_new_tokens": None}
    assert sampling_defaults(checkpoint, override=override) == {"temperature": 0.1, "top_k": 5}


def test_vllm_takes_none(checkpoint: Checkpoint) -> None:
    assert sampling_defaults(checkpoint, source="vllm", override={"top_k": 5}) == {"top_k": 5}


def test_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"min_p": 0.2}))
    assert sampling_defaults(checkpoint, source=str(tmp_path)) == {"min_p": 0.2}


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_folder_without_a_config(checkpoint: Checkpoint, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"generation_config\.json"):
        sampling_defaults(checkpoint, source=str(tmp_path))


def test_end_tokens(checkpoint: Checkpoint) -> None:
    assert eos_token_ids(checkpoint) == (2, 7)
    assert eos_token_ids(replace(checkpoint, generation_config={"eos_token_id": 0})) == (0,)
    assert eos_token_ids(replace(checkpoint, generation_config={}, config={"eos_token_id": [5]})) == (5,)
    assert eos_token_ids(replace(checkpoint, generation_config={}, config={})) == ()
