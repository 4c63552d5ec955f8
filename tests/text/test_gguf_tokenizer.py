"""Tokenizers from GGUF metadata that no real model at hand has: other splittings, prefix spaces, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awkward import CORPUS
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaTokenizer
from transformers.integrations.gguf import gguf_tokenizer_mapping as transformers_gguf

from headrace.core.errors import BadCheckpoint
from headrace.hub.checkpoint import Checkpoint, WeightFormat
from headrace.hub.gguf import GgufHeader
from headrace.text import Tokenizer
from headrace.text.gguf_pretokenizers import splitting
from headrace.text.gguf_tokenizer import TokenType
from headrace.text.merges import rebuild_merges

NORMAL, UNKNOWN, CONTROL, USER, BYTE = (
    TokenType.NORMAL,
    TokenType.UNKNOWN,
    TokenType.CONTROL,
    TokenType.USER_DEFINED,
    TokenType.BYTE,
)

WORDS = ["▁", "e", "h", "l", "o", "w", "r", "d", "he", "ll", "hell", "hello", "▁w", "or", "ld", "▁wor", "▁world", "▁h"]
WORDS += ["▁he", "▁hello", "▁▁"]


def load(tmp_path: Path, **settings: Any) -> Tokenizer:
    metadata = {f"tokenizer.ggml.{key}": value for key, value in settings.items()}
    metadata["general.architecture"] = metadata.pop("tokenizer.ggml.architecture", "llama")
    checkpoint = Checkpoint(
        name="m",
        path=tmp_path / "m.gguf",
        format=WeightFormat.GGUF,
        config={},
        gguf=GgufHeader({key: value for key, value in metadata.items() if value is not None}, {}),
    )
    return Tokenizer.load(checkpoint)


def sentencepiece(tmp_path: Path, **settings: Any) -> Tokenizer:
    """A vocabulary as Llama 2 has it: <unk>, <s>, </s>, 256 bytes, words by falling score, user-defined pieces."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS, "<tool>", "    "]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(WORDS), USER, USER]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(WORDS))] + [-1000.0, -1000.0]
    defaults = {
        "model": "llama",
        "tokens": tokens,
        "token_type": np.array(types, np.int32),
        "scores": np.array(scores, np.float32),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return load(tmp_path, **{**defaults, **settings})


def byte_level(tmp_path: Path, **settings: Any) -> Tokenizer:
    tokens = [*sorted(ByteLevel.alphabet()), "ab", "abc", "<|a|>", "<|b c|>", "<｜é｜>"]
    types = [NORMAL] * 258 + [CONTROL, USER, CONTROL]
    defaults = {
        "model": "gpt2",
        "tokens": tokens,
        "token_type": np.array(types, np.int32),
        "merges": ["a b", "ab c"],
        "bos_token_id": 258,
    }
    return load(tmp_path, **{**defaults, **settings})


def pieces(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool = False) -> list[str | None]:
    return [tokenizer.piece(token) for token in tokenizer.encode(text, add_special_tokens=add_special_tokens)]


class TestSentencePiece:
    def test_ids_equal_those_of_transformers(self, tmp_path: Path):
        ours = sentencepiece(tmp_path)
        vocabulary = {ours.piece(token): token for token in range(ours.vocab_size)}
        by_score = [*range(259, 259 + len(WORDS))]
        merges = rebuild_merges([ours.piece(token) for token in range(ours.vocab_size)], by_score)
        reference = LlamaTokenizer(vocab=vocabulary, merges=merges)
        for text in ("hello world", " hello", "hello  world ", "", " ", "wörld", "👩‍🚀", "</s>hello<s> world"):
            expected = reference.encode(text, add_special_tokens=False)
            assert ours.encode(text, add_special_tokens=False) == expected, text
            assert ours.decode(expected) == reference.decode(expected, skip_special_tokens=True), text

    def test_a_text_begins_with_bos_unless_the_file_says_no(self, tmp_path: Path):
        assert pieces(sentencepiece(tmp_path), "hello", add_special_tokens=True) == ["<s>", "▁hello"]
        plain = sentencepiece(tmp_path, add_bos_token=False, add_eos_token=True)
        assert pieces(plain, "hello", add_special_tokens=True) == ["▁hello", "</s>"]

    def test_no_space_is_put_first_where_the_file_says_so(self, tmp_path: Path):
        tokenizer = sentencepiece(tmp_path, add_space_prefix=False)
        assert pieces(tokenizer, "hello world") == ["hello", "▁world"]
        assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"

    def test_the_space_that_was_put_first_is_no_part_of_the_text(self, tmp_path: Path):
        tokenizer = sentencepiece(tmp_path)
        ids = tokenizer.encode("hello world")
        assert tokenizer.decode(ids) == "hello world"
        decoder = tokenizer.decoder([])
        assert [decoder.push([token]) for token in ids] == ["", "hello", " world"]

    def test_output_after_a_prompt_keeps_its_first_space(self, tmp_path: Path):
        tokenizer = sentencepiece(tmp_path)
        [world] = tokenizer.encode(" world", add_special_tokens=False)[-1:]
        assert tokenizer.decoder(tokenizer.encode("hello")).push([world]) == " world"
        assert tokenizer.decoder([1]).push([world]) == "world"  # the prompt shows no text
        assert tokenizer.token_text(world, []) == " world"

    def test_phi3_puts_a_space_before_a_space(self, tmp_path: Path):
        assert pieces(sentencepiece(tmp_path), " hello") == ["▁hello"]
        assert pieces(sentencepiece(tmp_path, architecture="phi3"), " hello") == ["▁", "▁hello"]

    def test_user_defined_pieces_stay_whole(self, tmp_path: Path):
        tokenizer = sentencepiece(tmp_path, add_space_prefix=False)
        assert pieces(tokenizer, "he<tool>llo") == ["he", "<tool>", "ll", "o"]
        assert tokenizer.decode(tokenizer.encode("<tool><s>")) == "<tool>"

    def test_byte_pieces_are_not_found_in_text(self, tmp_path: Path):
        assert "<0x41>" not in pieces(sentencepiece(tmp_path), "<0x41>")
        assert pieces(sentencepiece(tmp_path, add_space_prefix=False), "A") == ["<0x41>"]

    def test_merges_in_the_file_are_taken_as_they_are(self, tmp_path: Path):
        tokenizer = sentencepiece(tmp_path, scores=None, merges=["l l"], add_space_prefix=False)
        assert pieces(tokenizer, "hell") == ["h", "e", "ll"]


class TestByteLevel:
    def test_added_tokens_are_found_as_they_are_written(self, tmp_path: Path):
        tokenizer = byte_level(tmp_path)
        assert pieces(tokenizer, "abc<|b c|>ab<|a|><｜é｜>") == ["abc", "<|b c|>", "ab", "<|a|>", "<｜é｜>"]
        assert tokenizer.decode(tokenizer.encode("<｜é｜>abc"), skip_special_tokens=False) == "<｜é｜>abc"
        assert tokenizer.special_ids == {258, 260}

    def test_llama_3_begins_with_bos_and_takes_known_words_whole(self, tmp_path: Path):
        silent = byte_level(tmp_path, pre="llama-bpe", merges=["a b"])
        assert pieces(silent, "abc", add_special_tokens=True) == ["<|a|>", "abc"]
        told = byte_level(tmp_path, pre="llama-bpe", add_bos_token=False)
        assert pieces(told, "abc", add_special_tokens=True) == ["abc"]
        assert pieces(byte_level(tmp_path, pre="qwen2", merges=["a b"]), "abc") == ["ab", "c"]

    def test_an_unknown_splitting_is_named(self, tmp_path: Path):
        with pytest.raises(BadCheckpoint, match="'klingon'"):
            byte_level(tmp_path, pre="klingon")

    @pytest.mark.parametrize("name", ["llama-bpe", "dbrx", "qwen2", "qwen35", "tekken", "gpt-4o"])
    def test_splittings_equal_those_of_transformers(self, name: str):
        expected = transformers_gguf.GGUF_PRE_TOKENIZER_SPLITS[name]
        reference = transformers_gguf.pre_tokenizers.Sequence(
            [
                transformers_gguf.pre_tokenizers.Split(transformers_gguf.Regex(expected), behavior="isolated"),
                ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        ours = splitting(name).pre_tokenizer
        for case, text in CORPUS.items():
            assert ours.pre_tokenize_str(text) == reference.pre_tokenize_str(text), case

    @pytest.mark.parametrize(
        ("name", "text", "split"),
        [
            ("gpt-2", "it's 123  x", ["it", "'s", "Ġ123", "Ġ", "Ġx"]),
            ("default", "it's 123  x", ["it", "'s", "Ġ123", "Ġ", "Ġx"]),
            (None, "it's 123  x", ["it", "'s", "Ġ123", "Ġ", "Ġx"]),
            ("smollm", "a 12", ["a", "Ġ", "1", "2"]),
            ("falcon", "a,b 12345", ["a", ",", "b", "Ġ", "123", "45"]),
            ("deepseek-llm", "a b\n12 漢字!", ["a", "Ġb", "Ċ", "1", "2", "Ġ", "æ¼¢åŃĹ", "!"]),
            ("deepseek-coder", "a b\n12 漢字!", ["a", "Ġb", "Ċ", "1", "2", "Ġ", "æ¼¢åŃĹ", "!"]),
            ("deepseek-v3", "ab 12345 漢字x", ["ab", "Ġ", "123", "45", "Ġ", "æ¼¢åŃĹ", "x"]),
        ],
    )
    def test_other_splittings(self, name: str | None, text: str, split: list[str]):
        assert [piece for piece, _ in splitting(name).pre_tokenizer.pre_tokenize_str(text)] == split


class TestDamagedFiles:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"model": None}, "tokenizer.ggml.model"),
            ({"model": "rwkv"}, "'rwkv'"),
            ({"tokens": None}, "tokenizer.ggml.tokens"),
            ({"merges": None}, "tokenizer.ggml.merges"),
            ({"merges": ["ab"]}, "'ab', which is not a pair"),
            ({"merges": ["a zz"]}, "merges do not fit the vocabulary"),
            ({"token_type": np.array([1, 1], np.int32)}, "token_type has 2 entries for 261 tokens"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, settings: dict[str, Any], named: str):
        with pytest.raises(BadCheckpoint, match=named) as caught:
            byte_level(tmp_path, **settings)
        assert str(tmp_path / "m.gguf") in str(caught.value)

    def test_a_sentencepiece_vocabulary_needs_scores_or_merges(self, tmp_path: Path):
        with pytest.raises(BadCheckpoint, match=r"neither tokenizer\.ggml\.scores nor"):
            sentencepiece(tmp_path, scores=None)

    def test_special_tokens_beyond_the_vocabulary_are_none(self, tmp_path: Path):
        tokenizer = byte_level(tmp_path, bos_token_id=0xFFFFFFFF, add_bos_token=True)
        assert tokenizer.bos_token is None
        assert pieces(tokenizer, "ab", add_special_tokens=True) == ["ab"]
