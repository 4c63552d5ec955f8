"""The tokenizers of the real models against transformers on the same files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from awkward import CORPUS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from headrace.core.errors import BadRequest
from headrace.text import Tokenizer

GEMMA_BYTES = 238
"""The id of <0x00>; those of the other bytes follow."""

SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(params=["smollm2", "gemma3"])
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, PreTrainedTokenizerBase]:
    """Ours and transformers'."""
    return tuple(request.getfixturevalue(f"{request.param}_{kind}") for kind in ("tokenizer", "reference"))


def test_ids_equal_transformers_on_awkward_text(pair: tuple[Tokenizer, PreTrainedTokenizerBase]):
    ours, reference = pair
    for name, text in CORPUS.items():
        for special in (True, False):
            expected = reference.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special) == expected, name


@SHARED_FIXTURE
@given(text=st.text())
def test_ids_equal_transformers_on_any_text(pair: tuple[Tokenizer, PreTrainedTokenizerBase], text: str):
    ours, reference = pair
    assert ours.encode(text) == reference.encode(text)


def test_text_equals_transformers(pair: tuple[Tokenizer, PreTrainedTokenizerBase]):
    ours, reference = pair
    for name, text in CORPUS.items():
        ids = ours.encode(text)
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == reference.decode(ids, skip_special_tokens=skip), name


def test_special_tokens_equal_transformers(pair: tuple[Tokenizer, PreTrainedTokenizerBase]):
    ours, reference = pair
    for role in ("bos_token", "eos_token", "pad_token", "eos_token_id"):
        assert getattr(ours, role) == getattr(reference, role)
    assert ours.special_tokens["unk_token"] == reference.unk_token
    assert ours.vocab_size == len(reference)
    assert ours.special_ids == {token_id for token_id, token in reference.added_tokens_decoder.items() if token.special}


def test_text_without_space_marks_survives_the_round_trip(tokenizer: Tokenizer):
    for name, text in CORPUS.items():
        if "▁" not in text:
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.decode(ids, skip_special_tokens=False) == text, name


def test_transformers_differs_for_smollm2_only_around_digits(
    smollm2_tokenizer: Tokenizer, smollm2_as_transformers_reads_it: PreTrainedTokenizerBase
):
    differing = [
        name
        for name, text in CORPUS.items()
        if smollm2_tokenizer.encode(text) != smollm2_as_transformers_reads_it.encode(text)
    ]
    assert differing == ["tabs", "digits", "arabic"]
    assert [smollm2_tokenizer.piece(i) for i in smollm2_tokenizer.encode("in\t\t\t24")] == ["in", "ĉĉĉ", "2", "4"]


def test_gemma_text_begins_with_bos_unless_told_otherwise(gemma3_tokenizer: Tokenizer):
    assert gemma3_tokenizer.encode("Hi")[0] == 2
    assert gemma3_tokenizer.encode("Hi", add_special_tokens=False)[0] != 2


def test_an_id_beyond_the_vocabulary_has_neither_text_nor_piece(tokenizer: Tokenizer):
    for beyond in (-1, tokenizer.vocab_size, 1 << 40):
        assert tokenizer.piece(beyond) is None
        assert tokenizer.decode([beyond]) == ""
        assert tokenizer.token_text(beyond, []) == ""


def test_special_tokens_are_left_out_of_text_unless_asked_for(smollm2_tokenizer: Tokenizer):
    ids = smollm2_tokenizer.encode("<|im_start|>Hi<|im_end|>")
    assert smollm2_tokenizer.decode(ids) == "Hi"
    assert smollm2_tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>Hi<|im_end|>"


def test_no_piece_is_longer_than_max_piece_chars(tokenizer: Tokenizer):
    longest = max(len(tokenizer.piece(token_id)) for token_id in range(tokenizer.vocab_size))
    assert longest == tokenizer.max_piece_chars


def test_half_a_surrogate_pair_is_the_callers_mistake(tokenizer: Tokenizer):
    with pytest.raises(BadRequest, match="surrogate pair at character 3") as caught:
        tokenizer.encode("abc\ud83d")
    assert caught.value.parameter == "prompt"


def test_threads_get_the_same_ids(tokenizer: Tokenizer):
    texts = list(CORPUS.values())
    alone = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokenizer.encode, texts * 3)) == alone * 3


def test_info_has_what_clients_read(smollm2_tokenizer: Tokenizer):
    info = smollm2_tokenizer.info()
    assert info["tokenizer_class"]
    assert info["eos_token"] == "<|im_end|>"
    assert info["bos_token"] == "<|im_start|>"
    assert info["pad_token"] == "<|im_end|>"


class TestTokenText:
    def test_a_leading_space_is_kept(self, tokenizer: Tokenizer):
        [token] = tokenizer.encode(" the", add_special_tokens=False)
        assert tokenizer.token_text(token, []) == " the"

    def test_special_tokens_show(self, smollm2_tokenizer: Tokenizer):
        assert smollm2_tokenizer.token_text(2, []) == "<|im_end|>"

    def test_the_token_that_completes_a_character_carries_it(self, tokenizer: Tokenizer):
        for character in ("🫠", "𠜎", "𝕳"):
            ids = tokenizer.encode(character, add_special_tokens=False)
            texts = [tokenizer.token_text(token, ids[:place]) for place, token in enumerate(ids)]
            assert texts == [""] * (len(ids) - 1) + [character]

    @SHARED_FIXTURE
    @given(text=st.text(min_size=1))
    def test_the_texts_of_tokens_join_to_the_text(self, tokenizer: Tokenizer, text: str):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assume(tokenizer.decode(ids, skip_special_tokens=False) == text)  # SmolLM2 lacks some bytes
        texts = [tokenizer.token_text(token, ids[:place]) for place, token in enumerate(ids)]
        assert "".join(texts) == text

    def test_a_byte_that_belongs_to_nothing_gives_the_empty_string(self, gemma3_tokenizer: Tokenizer):
        byte = {value: GEMMA_BYTES + value for value in range(256)}
        assert all(gemma3_tokenizer.piece(token) == f"<0x{value:02X}>" for value, token in byte.items())
        word = gemma3_tokenizer.encode("word", add_special_tokens=False)
        assert gemma3_tokenizer.token_text(byte[0x80], word) == ""
        assert gemma3_tokenizer.token_text(byte[0xF0], []) == ""
        assert gemma3_tokenizer.token_text(byte[0x41], []) == "A"
        assert gemma3_tokenizer.token_text(byte[0xA9], [*word, byte[0xC3]]) == "é"
        assert gemma3_tokenizer.token_text(word[0], [byte[0xC3]]) == "word"
