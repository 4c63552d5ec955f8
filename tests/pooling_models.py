"""Tiny random checkpoints of models that pool, with MiniLM's tokenizer, for tests of what stands around the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def copy_tokenizer(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER_FILES:
        shutil.copy(source / name, folder)


def save_bert_classifier(folder: Path, minilm: Path, *, labels: tuple[str, ...], positions: int = 64) -> Any:
    """A BERT with one class for each of `labels`, at random; returned as transformers has it."""
    import torch  # seconds, and most tests need neither
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(len(labels))
    config = BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.normal_(0, 4)  # scores that are far from each other
    model.save_pretrained(folder)
    copy_tokenizer(minilm, folder)
    return model


def save_decoder_classifier(folder: Path, minilm: Path) -> Any:
    """A decoder with one class, as `save_bert_classifier`."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=0,
    )
    model = LlamaForSequenceClassification(config).eval()
    with torch.no_grad():
        model.score.weight.normal_(0, 2)
    model.save_pretrained(folder)
    copy_tokenizer(minilm, folder)
    return model


def poison(folder: Path, minilm: Path, token_id: int) -> None:
    """MiniLM, in which one token has no number for a vector."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(minilm, folder)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][token_id] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))
