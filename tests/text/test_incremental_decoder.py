from __future__ import annotations

import random
import time

import pytest
from awkward import CORPUS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from headrace.text import IncrementalDecoder, Tokenizer
from headrace.text.incremental import WindowDecoder, unfinished_tail
from headrace.text.parts import TokenizerParts

SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

IDS = st.lists(
    st.one_of(
        st.integers(0, 262_300),
        st.integers(0, 600),  # in both vocabularies: special tokens and single bytes
        st.sampled_from([-1, 1 << 31, 1 << 64]),
    ),
    max_size=40,
)


def in_pieces(decoder: IncrementalDecoder, ids: list[int], cuts: list[int]) -> str:
    text = ""
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        text += decoder.push(ids[start:end])
    return text + decoder.finish()


@SHARED_FIXTURE
@given(ids=IDS, prompt=IDS, skip=st.booleans(), data=st.data())
def test_any_split_of_any_ids_gives_the_same_text(
    tokenizer: Tokenizer, ids: list[int], prompt: list[int], skip: bool, data: st.DataObject
):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=10)))
    whole, one_by_one, cut = (tokenizer.decoder(prompt, skip_special_tokens=skip) for _ in range(3))
    text = in_pieces(whole, ids, [])
    assert in_pieces(one_by_one, ids, list(range(len(ids)))) == text
    assert in_pieces(cut, ids, cuts) == text


@SHARED_FIXTURE
@given(ids=IDS, skip=st.booleans())
def test_text_is_that_of_decode_short_of_an_unfinished_end(tokenizer: Tokenizer, ids: list[int], skip: bool):
    text = in_pieces(tokenizer.decoder([], skip_special_tokens=skip), ids, [])
    decoded = tokenizer.decode(ids, skip_special_tokens=skip)
    assert decoded in (text, text + "\ufffd", text + "\ufffd\ufffd", text + "\ufffd\ufffd\ufffd")


def test_awkward_text_comes_back(tokenizer: Tokenizer):
    for name, text in CORPUS.items():
        if "▁" not in text:
            ids = tokenizer.encode(text, add_special_tokens=False)
            decoder = tokenizer.decoder([], skip_special_tokens=False)
            assert in_pieces(decoder, ids, list(range(len(ids)))) == text, name


def test_long_random_streams_never_raise(tokenizer: Tokenizer):
    draw = random.Random(0)
    decoder = tokenizer.decoder([])
    for _ in range(20_000):
        decoder.push([draw.randrange(tokenizer.vocab_size + 10)])


def test_a_character_comes_when_its_last_token_does(tokenizer: Tokenizer):
    ids = tokenizer.encode("𝕳", add_special_tokens=False)
    assert len(ids) > 1
    decoder = tokenizer.decoder([])
    assert [decoder.push([token]) for token in ids] == [""] * (len(ids) - 1) + ["𝕳"]


def test_an_unfinished_end_is_dropped(tokenizer: Tokenizer):
    ids = tokenizer.encode("ok 𝕳", add_special_tokens=False)
    decoder = tokenizer.decoder([])
    assert decoder.push(ids[:-1]) + decoder.finish() == "ok "


def test_bytes_that_cannot_become_a_character_show_once_the_next_token_proves_it(gemma3_tokenizer: Tokenizer):
    lead = 238 + 0xF0
    [word] = gemma3_tokenizer.encode("word", add_special_tokens=False)
    assert gemma3_tokenizer.piece(lead) == "<0xF0>"
    decoder = gemma3_tokenizer.decoder([])
    assert decoder.push([lead]) == ""
    assert decoder.push([lead]) == "\ufffd"
    assert decoder.push([word]) == "\ufffdword"
    assert decoder.push([word]) == "word"


def test_the_space_of_the_first_token_survives(tokenizer: Tokenizer):
    prompt = tokenizer.encode("The capital of France is")
    [token] = tokenizer.encode(" Paris", add_special_tokens=False)
    assert tokenizer.decoder(prompt).push([token]) == " Paris"


def test_a_character_begun_by_the_prompt_is_completed(tokenizer: Tokenizer):
    ids = tokenizer.encode("𝕳i", add_special_tokens=False)
    decoder = tokenizer.decoder(ids[:2])
    assert decoder.push(ids[2:]) == "𝕳i"


def test_a_character_that_the_prompt_left_unfinished_is_no_fault_of_the_output(tokenizer: Tokenizer):
    begun = tokenizer.encode("𝕳", add_special_tokens=False)[:1]
    word = tokenizer.encode("word", add_special_tokens=False)
    assert tokenizer.decoder(begun).push(word) == "word"


def test_special_tokens_show_only_when_asked_for(smollm2_tokenizer: Tokenizer):
    ids = smollm2_tokenizer.encode("a<|im_end|>b")
    assert smollm2_tokenizer.decoder([]).push(ids) == "ab"
    assert smollm2_tokenizer.decoder([], skip_special_tokens=False).push(ids) == "a<|im_end|>b"


def test_the_cost_of_a_token_does_not_grow(smollm2_tokenizer: Tokenizer):
    """A decoder that looked at all tokens again would take seconds here."""
    decoder = smollm2_tokenizer.decoder([])
    ids = smollm2_tokenizer.encode("word ")
    start = time.process_time()
    for _ in range(50_000):
        decoder.push(ids)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("data", "tail"),
    [
        (b"", b""),
        (b"abc", b""),
        ("é".encode(), b""),
        (b"a\xc3", b"\xc3"),
        (b"a\xe2\x80", b"\xe2\x80"),
        (b"\xf0\x9f\x98", b"\xf0\x9f\x98"),
        (b"\x9f\x98", b""),
        (b"\xf0\x20", b""),
        (b"\xff", b""),
    ],
)
def test_unfinished_tail(data: bytes, tail: bytes):
    assert unfinished_tail(data) == tail


class TestDecodersThatDoMoreThanJoinBytes:
    """WordPiece puts spaces between words, and glues pieces with ##; without a decoder all tokens are parted."""

    @pytest.fixture
    def word_pieces(self) -> Tokenizer:
        words = ["[UNK]", "hel", "##lo", "world", "!", "<a>", "<b>", "\ufffd"]
        backend = Backend(models.WordPiece({word: token for token, word in enumerate(words)}, unk_token="[UNK]"))
        backend.decoder = decoders.WordPiece(cleanup=False)
        backend.add_tokens(["<a>", "<b>"])
        return Tokenizer(TokenizerParts(backend=backend, max_piece_chars=5, special_tokens={}, config={}))

    def test_text_comes_as_decode_has_it(self, word_pieces: Tokenizer):
        decoder = word_pieces.decoder([])
        assert isinstance(decoder, WindowDecoder)
        ids = [1, 2, 3, 4]
        assert [decoder.push([token]) for token in ids] == ["hel", "lo", " world", " !"]
        assert decoder.finish() == ""

    def test_the_prompt_is_context(self, word_pieces: Tokenizer):
        assert word_pieces.decoder([1, 2]).push([3]) == " world"

    def test_added_tokens_are_joined_without_spaces_if_asked(self, word_pieces: Tokenizer):
        ids = [1, 5, 6, 3]
        assert word_pieces.decode(ids) == "hel <a> <b> world"
        assert word_pieces.decode(ids, spaces_between_special_tokens=False) == "hel<a><b>world"
        decoder = word_pieces.decoder([], spaces_between_special_tokens=False)
        assert in_pieces(decoder, ids, [0, 1, 2, 3]) == "hel<a><b>world"

    def test_a_piece_that_is_the_replacement_character_does_not_hold_up_text_forever(self, word_pieces: Tokenizer):
        decoder = word_pieces.decoder([])
        text = "".join(decoder.push([7]) for _ in range(30))
        assert text.count("\ufffd") >= 20

    @given(ids=st.lists(st.integers(-1, 9), max_size=30), data=st.data())
    def test_any_split_gives_the_same_text(self, ids: list[int], data: st.DataObject):
        words = ["[UNK]", "hel", "##lo", "world", "!", "\ufffd"]
        backend = Backend(models.WordPiece({word: token for token, word in enumerate(words)}, unk_token="[UNK]"))
        backend.decoder = decoders.WordPiece(cleanup=False)
        tokenizer = Tokenizer(TokenizerParts(backend=backend, max_piece_chars=5, special_tokens={}, config={}))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
        assert in_pieces(tokenizer.decoder([]), ids, cuts) == in_pieces(tokenizer.decoder([]), ids, [])
