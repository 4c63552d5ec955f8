"""Tokenizers of the real models, each built once, and what transformers makes of the same files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from headrace.hub.checkpoint import Checkpoint, WeightFormat
from headrace.hub.gguf import read_gguf_header
from headrace.text import Tokenizer


def gguf_checkpoint(path: Path) -> Checkpoint:
    return Checkpoint(name=path.stem, path=path, format=WeightFormat.GGUF, config={}, gguf=read_gguf_header(path))


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.load(gguf_checkpoint(smollm2_path))


@pytest.fixture(scope="session")
def gemma3_checkpoint(gemma3_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Gemma 3 in a folder of its own, so that the merges kept beside it go away with the test."""
    link = tmp_path_factory.mktemp("gemma3") / gemma3_path.name
    link.symlink_to(gemma3_path)
    return gguf_checkpoint(link)


@pytest.fixture(scope="session")
def gemma3_tokenizer(gemma3_checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.load(gemma3_checkpoint)


@pytest.fixture(params=["smollm2", "gemma3"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Each of the two real tokenizers in turn: byte-level, and score-ranked with byte fallback."""
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.fixture(scope="session")
def smollm2_as_transformers_reads_it(smollm2_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)


@pytest.fixture(scope="session")
def smollm2_reference(smollm2_as_transformers_reads_it: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """As published: with the digits cut off first, which transformers forgets for GGUF files."""
    reference = copy.deepcopy(smollm2_as_transformers_reads_it)
    reference.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return reference


@pytest.fixture(scope="session")
def gemma3_reference(gemma3_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(gemma3_path.parent, gguf_file=gemma3_path.name)
