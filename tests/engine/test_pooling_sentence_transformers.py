"""Models with the files of sentence-transformers against sentence-transformers itself, from texts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pooling_driver import DECODER, ENCODER, close, load, pool, write_model
from tokenizers import Tokenizer

from headrace.core.pooling import PoolingTask

WORDS = [f"word{number}" for number in range(92)]
TEXTS = ["", "word1", "word2 word3 word4", " ".join(WORDS), "word5 unknown word6", "word7 " * 40]


@pytest.fixture(scope="module")
def library() -> Any:
    import sentence_transformers  # many seconds, and other tests need it not

    return sentence_transformers


@pytest.fixture(scope="module")
def modules() -> Any:
    from sentence_transformers.sentence_transformer import modules

    return modules


def write_tokenizer(folder: Path, *, max_length: int = 64) -> None:
    """A WordPiece tokenizer of 97 words whose special tokens fit `ENCODER`."""
    from transformers import BertTokenizer

    (folder / "vocab.txt").write_text("\n".join(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=max_length)
    tokenizer.save_pretrained(folder)


def token_ids(folder: Path, texts: list[str], limit: int) -> list[list[int]]:
    """As sentence-transformers makes them: cut to `limit`, special tokens included."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def random_texts(count: int) -> list[str]:
    """Most of a few words, some of 400: far beyond what the model reads."""
    chooser = random.Random(0)
    words = ["the", "river", "mill", "wheel", "over", "café", "naïve", "12", "3.5", "--", "unbelievably", "xyzzy"]
    lengths = [400 if number % 50 == 0 else int(chooser.expovariate(1 / 8)) for number in range(count - 2)]
    return ["", "水车 🙂", *(" ".join(chooser.choices(words, k=length)) for length in lengths)]


def test_minilm(minilm_path, library):
    texts = random_texts(500)
    theirs = library.SentenceTransformer(str(minilm_path), device="cpu").encode(texts)
    engine = load(minilm_path, dtype="auto")
    inputs = token_ids(minilm_path, texts, engine.info.pooling.max_seq_length)
    assert max(map(len, inputs)) == 256

    ours = np.stack(pool(engine, inputs, PoolingTask.EMBED))

    cosines = (ours * theirs).sum(1) / np.linalg.norm(theirs, axis=1)
    assert ours.shape == (500, 384)
    assert cosines.min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-5)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    write_model(folder, "bert", **ENCODER)
    write_tokenizer(folder)
    return folder


WIDTH = ENCODER["hidden_size"]
PIPELINES = {
    "cls": lambda st: [st.Pooling(WIDTH, "cls")],
    "max_normalized": lambda st: [st.Pooling(WIDTH, "max"), st.Normalize()],
    "mean_sqrt_len": lambda st: [st.Pooling(WIDTH, "mean_sqrt_len_tokens")],
    "weighted_mean": lambda st: [st.Pooling(WIDTH, "weightedmean"), st.Normalize()],
    "last": lambda st: [st.Pooling(WIDTH, "lasttoken")],
    "two_modes": lambda st: [st.Pooling(WIDTH, ("cls", "mean")), st.Normalize()],
    "dense": lambda st: [st.Pooling(WIDTH, "mean"), st.Dense(WIDTH, 24), st.Normalize()],
    "layers": lambda st: [
        st.Pooling(WIDTH, ("max", "cls")),
        st.Dense(2 * WIDTH, 40, bias=False, activation_function=torch.nn.GELU()),
        st.LayerNorm(40),
        st.Dense(40, 16, activation_function=torch.nn.Identity()),
    ],
}
"""What follows the transformer, made of sentence-transformers' modules."""


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_modules(pipeline, bert_folder, tmp_path, library, modules):
    torch.manual_seed(1)
    transformer = modules.Transformer(str(bert_folder), max_seq_length=32)
    theirs = library.SentenceTransformer(modules=[transformer, *PIPELINES[pipeline](modules)], device="cpu")
    theirs.save(str(tmp_path))
    engine = load(tmp_path)
    info = engine.info.pooling

    ours = pool(engine, token_ids(tmp_path, TEXTS, info.max_seq_length), PoolingTask.EMBED)

    expected = theirs.encode(TEXTS)
    assert (info.max_seq_length, engine.info.max_model_len) == (32, 32)
    assert info.embedding_size == expected.shape[1]
    assert info.use_activation is any(isinstance(module, modules.Normalize) for module in theirs)
    np.testing.assert_allclose(np.stack(ours), expected, atol=1e-4)


def test_a_decoder_that_embeds(tmp_path, library, modules):
    """As Qwen3-Embedding is published: an architecture that generates, with modules for the last token beside it."""
    base = tmp_path / "base"
    write_model(base, "qwen3", "ModelForCausalLM", **{**DECODER, "head_dim": 32})
    write_tokenizer(base)
    transformer = modules.Transformer(str(base), max_seq_length=48)
    theirs = library.SentenceTransformer(
        modules=[transformer, modules.Pooling(64, "lasttoken"), modules.Normalize()], device="cpu"
    )
    theirs.save(str(tmp_path / "saved"))
    config = base / "config.json"
    (tmp_path / "saved" / "config.json").write_bytes(config.read_bytes())  # it still says …ForCausalLM

    engine = load(tmp_path / "saved")
    ours = pool(engine, token_ids(tmp_path / "saved", TEXTS, 48), PoolingTask.EMBED)

    assert engine.info.architecture == "Qwen3ForCausalLM"
    assert engine.info.pooling.is_causal
    assert engine.info.pooling.max_seq_length == 48
    np.testing.assert_allclose(np.stack(ours), theirs.encode(TEXTS), atol=1e-4)


PAIRS = [("word1 word2", "word3"), ("word4", "word5 word6 word7"), ("word8", ""), ("word9 " * 30, "word10 " * 50)]


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "mpnet", "electra", "modernbert"])
def test_cross_encoders(model_type, tmp_path, library):
    config = {**ENCODER}
    if model_type == "distilbert":
        config = {"vocab_size": 97, "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "pad_token_id": 1}
    if model_type == "modernbert":
        config |= {"cls_token_id": 2, "sep_token_id": 3}
    write_model(tmp_path, model_type, "ModelForSequenceClassification", **config, num_labels=1)
    write_tokenizer(tmp_path)
    theirs = library.CrossEncoder(str(tmp_path), device="cpu")
    engine = load(tmp_path)
    info = engine.info.pooling
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    encoded = tokenizer.encode_batch(PAIRS)
    types = [pair.type_ids if info.type_vocab_size > 1 else None for pair in encoded]

    ours = pool(engine, [pair.ids for pair in encoded], PoolingTask.CLASSIFY, types=types)

    assert (info.num_labels, info.max_seq_length) == (1, 64)
    close(np.concatenate(ours), torch.tensor(theirs.predict(PAIRS)))
