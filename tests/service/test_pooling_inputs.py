"""What the engine gets of texts, ids and pairs: MiniLM's tokenizer, held against tokenizers' own truncation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from pooling_models import change_json, copy_tokenizer

from headrace.core.errors import BadRequest, ContextOverflow, NotPermitted
from headrace.core.pooling import PoolingInfo, PoolingTask
from headrace.hub import open_checkpoint, pull
from headrace.service import Encoding, Scoring
from headrace.service.pooling_inputs import InputPreparer
from headrace.service.pooling_types import Side
from headrace.text import Tokenizer

CLS, SEP = 101, 102
WORDS = [
    "river",
    "mill",
    "Wheel",
    "x" * 120,
    "  ",
    "\n",
    "unbelievably",
    "é",
    "水",
    "q" * 99,
    "3.14",
    "[SEP]",
    "\u200b",
]
"""Known and unknown words, spaces, and what takes many characters for a token or none."""


@pytest.fixture(scope="module")
def minilm() -> Path:
    return pull("minilm", progress=False)


@pytest.fixture(scope="module")
def minilm_tokenizer(minilm: Path) -> Tokenizer:
    return Tokenizer.load(open_checkpoint(str(minilm)))


@pytest.fixture(scope="module")
def preparer(minilm_tokenizer: Tokenizer) -> InputPreparer:
    return make_preparer(minilm_tokenizer)


def make_preparer(tokenizer: Tokenizer | None, **changes: Any) -> InputPreparer:
    facts = {"tasks": (PoolingTask.EMBED,), "max_seq_length": 256, "type_vocab_size": 2, **changes}
    return InputPreparer(tokenizer, PoolingInfo(**facts), vocab_size=30522, max_model_len=512)


def reference(minilm: Path, limit: int, side: str = "right") -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
    backend.no_padding()
    backend.enable_truncation(limit, strategy="longest_first", direction=side)
    return backend


def random_texts(seed: int, count: int, longest: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(longest))) for _ in range(count)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("limit", "longest"), [(3, 12), (8, 24), (256, 700)])
def test_texts_are_cut_as_tokenizers_cuts_them(
    preparer: InputPreparer, minilm: Path, limit: int, longest: int, side: Side
) -> None:
    texts = ["", *random_texts(limit, 40, longest)]
    prepared = preparer.prepare(texts, Encoding(truncate_prompt_tokens=limit, truncation_side=side))
    expected = reference(minilm, limit, side).encode_batch(texts)
    assert [each.ids for each in prepared] == [encoding.ids for encoding in expected]
    assert max(len(each.ids) for each in prepared) == limit


@pytest.mark.parametrize(
    "text",
    ["word " * 25_000, " " * 100_000 + "river", "x" * 100_000, "\u200b" * 50_000 + "mill", "水" * 30_000],
    ids=["words", "spaces", "one word", "invisible", "no spaces"],
)
def test_very_long_texts_are_cut_as_tokenizers_cuts_them(preparer: InputPreparer, minilm: Path, text: str) -> None:
    (prepared,) = preparer.prepare([text], Encoding())
    assert prepared.ids == reference(minilm, 256).encode(text).ids


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("limit", "longest"), [(4, 8), (9, 16), (32, 40), (256, 300)])
def test_pairs_are_cut_as_tokenizers_cuts_them(
    preparer: InputPreparer, minilm: Path, limit: int, longest: int, side: Side
) -> None:
    queries, documents = random_texts(limit, 40, longest), random_texts(-limit, 40, longest)
    queries[0] = documents[1] = ""
    encoding = Encoding(truncate_prompt_tokens=limit, truncation_side=side)
    prepared = preparer.prepare_pairs(Scoring(queries=queries, documents=documents, request_id="r", encoding=encoding))
    expected = reference(minilm, limit, side).encode_batch(list(zip(queries, documents, strict=True)))
    assert [each.ids for each in prepared] == [encoding.ids for encoding in expected]
    assert [each.type_ids for each in prepared] == [encoding.type_ids for encoding in expected]


def test_one_query_is_paired_with_every_document(preparer: InputPreparer) -> None:
    single = preparer.prepare_pairs(Scoring(queries=["river"], documents=["mill", "wheel"], request_id="r"))
    twice = preparer.prepare_pairs(Scoring(queries=["river"] * 2, documents=["mill", "wheel"], request_id="r"))
    assert single == twice
    assert len(single) == 2


def test_texts_of_a_pair_are_cut_by_themselves_first(preparer: InputPreparer) -> None:
    call = Scoring(
        queries=["river river river"],
        documents=["mill mill mill"],
        request_id="r",
        max_tokens_per_query=1,
        max_tokens_per_doc=2,
    )
    river, mill = (preparer.prepare([word], Encoding())[0].ids[1] for word in ("river", "mill"))
    (pair,) = preparer.prepare_pairs(call)
    assert pair.ids == [CLS, river, SEP, mill, mill, SEP]
    assert pair.type_ids == [0, 0, 0, 1, 1, 1]


def test_a_model_without_token_types_gets_none(minilm_tokenizer: Tokenizer) -> None:
    preparer = make_preparer(minilm_tokenizer, type_vocab_size=0)
    (pair,) = preparer.prepare_pairs(Scoring(queries=["river"], documents=["mill"], request_id="r"))
    assert pair.type_ids is None


def test_ids_are_taken_as_they_are(preparer: InputPreparer) -> None:
    inputs = [[5, 6], "river", [7], list(range(300))]
    prepared = [each.ids for each in preparer.prepare(inputs, Encoding())]
    assert prepared[0] == [5, 6]
    assert prepared[1][0] == CLS
    assert prepared[2:] == [[7], list(range(256))]


def test_special_tokens_can_be_left_out(preparer: InputPreparer) -> None:
    (framed,) = preparer.prepare(["river mill"], Encoding())
    (bare,) = preparer.prepare(["river mill"], Encoding(add_special_tokens=False))
    assert framed.ids == [CLS, *bare.ids, SEP]


@pytest.mark.parametrize(
    ("given", "encoding", "refusal"),
    [
        ([5, 30522], Encoding(), "Token id 30522 is out of vocabulary"),
        ([5, -1], Encoding(), "Token id -1 is out of vocabulary"),
        ([], Encoding(), "must not be empty"),
        ("", Encoding(add_special_tokens=False), "must not be empty"),
        ("a", Encoding(truncate_prompt_tokens=257), r"must be -1 or in \[1, 256\], got 257"),
        ("a", Encoding(truncate_prompt_tokens=0), r"must be -1 or in \[1, 256\], got 0"),
        ("a", Encoding(truncate_prompt_tokens=2), "must be at least 3: 2 tokens are special ones"),
    ],
)
def test_refusals(preparer: InputPreparer, given: Any, encoding: Encoding, refusal: str) -> None:
    with pytest.raises(BadRequest, match=refusal):
        preparer.prepare(["river", given], encoding)


def test_a_model_that_cuts_nothing_refuses_what_is_too_long(minilm_tokenizer: Tokenizer) -> None:
    preparer = make_preparer(minilm_tokenizer, max_seq_length=None)
    text = "river " * 600
    with pytest.raises(ContextOverflow, match=r"maximum context length is 512 tokens.*602 tokens"):
        preparer.prepare([text], Encoding())
    (cut,) = preparer.prepare([text], Encoding(truncate_prompt_tokens=-1))
    assert len(cut.ids) == 512


def test_without_a_tokenizer_only_ids_are_taken() -> None:
    preparer = make_preparer(None)
    assert preparer.prepare([[5]], Encoding())[0].ids == [5]
    with pytest.raises(NotPermitted, match="--tokens-only"):
        preparer.prepare(["river"], Encoding())
    with pytest.raises(NotPermitted, match="--tokens-only"):
        preparer.prepare_pairs(Scoring(queries=["river"], documents=["mill"], request_id="r"))


def test_a_model_may_ask_for_lower_case(minilm: Path, tmp_path: Path) -> None:
    copy_tokenizer(minilm, tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text((minilm / "config.json").read_text())
    (tmp_path / "model.safetensors").symlink_to(minilm / "model.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    assert Tokenizer.load(checkpoint).encode("River") != Tokenizer.load(checkpoint).encode("river")
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    change_json(tmp_path / "sentence_bert_config.json", do_lower_case=True)
    assert Tokenizer.load(checkpoint).encode("River") == Tokenizer.load(checkpoint).encode("river")
