from __future__ import annotations

import time
from pathlib import Path

import pytest
from awkward import CORPUS

from headrace.hub.checkpoint import Checkpoint
from headrace.text import Tokenizer
from headrace.text.merges import MergeCache, rebuild_merges

PIECES = ["a", "b", "c", "ab", "abc", "bc"]
MERGES = rebuild_merges(PIECES, [3, 4, 5, 0, 1, 2])


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home" / ".cache" / "headrace" / "tokenizers"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder / "m.gguf"


def test_every_cut_of_a_piece_is_a_merge_best_union_first():
    assert MERGES == [("a", "b"), ("ab", "c"), ("a", "bc"), ("b", "c")]


def test_merges_are_kept_beside_the_model(model: Path, user_cache: Path):
    cache = MergeCache(model)
    assert cache.load(b"key", PIECES) is None
    cache.save(b"key", PIECES, MERGES)
    assert cache.load(b"key", PIECES) == MERGES
    [file] = model.parent.iterdir()  # and nothing half-written stays behind
    assert file.name.startswith("m.gguf.")
    assert not user_cache.exists()


def test_another_vocabulary_has_another_file(model: Path, user_cache: Path):
    cache = MergeCache(model)
    cache.save(b"key", PIECES, MERGES)
    assert cache.load(b"other key", PIECES) is None


def test_the_users_cache_serves_where_the_model_cannot_be_written(tmp_path: Path, user_cache: Path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    cache = MergeCache(in_the_way / "m.gguf")
    cache.save(b"key", PIECES, MERGES)
    assert len(list(user_cache.iterdir())) == 1
    assert cache.load(b"key", PIECES) == MERGES


def test_nowhere_to_write_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    monkeypatch.setenv("HOME", str(in_the_way))
    cache = MergeCache(in_the_way / "m.gguf")
    cache.save(b"key", PIECES, MERGES)
    assert cache.load(b"key", PIECES) is None


@pytest.mark.parametrize("damage", ["empty", "cut short", "a bit", "another format"])
def test_a_damaged_file_is_as_good_as_none(model: Path, user_cache: Path, damage: str):
    cache = MergeCache(model)
    cache.save(b"key", PIECES, MERGES)
    [file] = model.parent.iterdir()
    content = file.read_bytes()
    damaged = {
        "empty": b"",
        "cut short": content[:-1],
        "a bit": content[:-1] + bytes([content[-1] ^ 1]),
        "another format": b"x" + content,
    }
    file.write_bytes(damaged[damage])
    assert cache.load(b"key", PIECES) is None
    cache.save(b"key", PIECES, MERGES)
    assert cache.load(b"key", PIECES) == MERGES


def test_a_file_for_a_larger_vocabulary_is_as_good_as_none(model: Path, user_cache: Path):
    cache = MergeCache(model)
    cache.save(b"key", PIECES, MERGES)
    assert cache.load(b"key", PIECES[:3]) is None


def test_gemma_from_kept_merges_is_the_same_and_sooner_ready(
    gemma3_checkpoint: Checkpoint, gemma3_tokenizer: Tokenizer
):
    [kept] = [path for path in gemma3_checkpoint.path.parent.iterdir() if path != gemma3_checkpoint.path]
    begin = time.process_time()
    again = Tokenizer.load(gemma3_checkpoint)
    with_kept = time.process_time() - begin
    kept.unlink()
    begin = time.process_time()
    Tokenizer.load(gemma3_checkpoint)
    assert with_kept < time.process_time() - begin
    for name, text in CORPUS.items():
        assert again.encode(text) == gemma3_tokenizer.encode(text), name
