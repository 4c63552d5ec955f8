"""A compiler for the vocabulary of a real model, and what it accepts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.core.structured import StructuredOutputsParams
from headrace.core.vocabulary import Vocabulary
from headrace.grammar.compiler import GrammarCompiler
from headrace.grammar.state import GrammarReader
from headrace.hub import open_checkpoint
from headrace.text import Tokenizer

VOCAB_SIZE = 49152

Verdict = Callable[[StructuredOutputsParams, str], str]


@pytest.fixture(scope="session")
def tokenizer(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.load(open_checkpoint(str(smollm2_path)))


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    found = tokenizer.vocabulary([2])
    assert found is not None
    return found


@pytest.fixture(scope="session")
def compiler(vocabulary: Vocabulary) -> GrammarCompiler:
    return GrammarCompiler(vocabulary, VOCAB_SIZE)


@pytest.fixture(scope="session")
def reader(vocabulary: Vocabulary) -> GrammarReader:
    return GrammarReader(vocabulary, VOCAB_SIZE)


@pytest.fixture(scope="session")
def verdict(compiler: GrammarCompiler, reader: GrammarReader, tokenizer: Tokenizer) -> Verdict:
    """What a constraint says of a text: "yes", "no", or "begun" if it can only be the beginning of an answer."""

    def judge(params: StructuredOutputsParams, text: str) -> str:
        matcher = reader.read(compiler.compile(params)).matcher
        ids = tokenizer.encode(text, add_special_tokens=False)
        if matcher.try_consume_tokens(ids) < len(ids):
            return "no"
        return "yes" if matcher.is_accepting() else "begun"

    return judge
