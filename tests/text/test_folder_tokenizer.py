"""Tokenizers of Hugging Face folders against transformers on the same folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from headrace.core.errors import BadCheckpoint
from headrace.hub.checkpoint import Checkpoint, WeightFormat
from headrace.text import Tokenizer

TEXTS = ["", "abc ab", "<s>abc</s><tool> x<pad>", "äbc <extra> abc", "a" * 100]


def make_folder(folder: Path, *, config: dict[str, Any] | None, special_map: dict[str, Any] | None = None) -> Path:
    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc", "<tool>", "<extra>"]
    backend = Backend(models.BPE({word: token for token, word in enumerate(words)}, [("a", "b"), ("ab", "c")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.add_tokens([AddedToken("<tool>", normalized=False)])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special_map)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


def load(folder: Path, source: Path | None = None) -> Tokenizer:
    return Tokenizer.load(Checkpoint(name="m", path=folder, format=WeightFormat.SAFETENSORS, config={}), source)


CONFIGS: dict[str, dict[str, Any]] = {
    "text": {"bos_token": "<s>", "eos_token": "</s>"},
    "objects": {
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False},
        "eos_token": {"__type": "AddedToken", "content": "</s>", "normalized": False},
        "pad_token": {"__type": "AddedToken", "content": "<pad>", "special": True, "lstrip": True},
    },
    "flags that the tokenizer does not follow": {"bos_token": "<s>", "add_bos_token": False, "add_eos_token": True},
    "added here": {
        "bos_token": "<s>",
        "added_tokens_decoder": {"261": {"content": "<extra>", "special": True, "normalized": False}},
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_ids_equal_transformers(tmp_path: Path, name: str):
    folder = make_folder(tmp_path / "m", config={"tokenizer_class": "PreTrainedTokenizerFast", **CONFIGS[name]})
    reference = AutoTokenizer.from_pretrained(folder)
    ours = load(folder)
    for text in TEXTS:
        for special in (True, False):
            expected = reference.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special) == expected, text
            assert ours.decode(expected) == reference.decode(expected, skip_special_tokens=True), text
    for role in ("bos_token", "eos_token", "pad_token", "eos_token_id"):
        assert getattr(ours, role) == getattr(reference, role)


def test_text_is_neither_cut_nor_padded(tmp_path: Path):
    folder = make_folder(tmp_path / "m", config={})
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(5)
    backend.enable_padding(length=20)
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = load(folder)
    assert len(tokenizer.encode("x" * 50)) == 51
    assert len(tokenizer.encode("x")) == 2


def test_special_tokens_may_stand_in_the_map_alone(tmp_path: Path):
    special_map = {"eos_token": {"content": "</s>"}, "pad_token": "<pad>", "additional_special_tokens": ["<extra>"]}
    tokenizer = load(make_folder(tmp_path / "m", config=None, special_map=special_map))
    assert tokenizer.special_tokens == {"eos_token": "</s>", "pad_token": "<pad>"}
    assert (tokenizer.bos_token, tokenizer.eos_token_id) == (None, 1)
    assert {tokenizer.piece(token) for token in tokenizer.special_ids} == {"<s>", "</s>", "<pad>", "<extra>"}


def test_the_configuration_is_what_info_tells(tmp_path: Path):
    config = {**CONFIGS["objects"], "model_max_length": 99}
    info = load(make_folder(tmp_path / "m", config=config)).info()
    assert info["model_max_length"] == 99
    assert info["eos_token"] == "</s>"
    assert info["tokenizer_class"]
    assert "chat_template" not in info
    checkpoint = Checkpoint(
        name="m", path=tmp_path / "m", format=WeightFormat.SAFETENSORS, config={}, chat_template="{{ 1 }}"
    )
    assert Tokenizer.load(checkpoint).info()["chat_template"] == "{{ 1 }}"


def test_a_source_overrides_the_models_own(tmp_path: Path, smollm2_path: Path):
    folder = make_folder(tmp_path / "m", config=CONFIGS["text"])
    (tmp_path / "empty").mkdir()
    for source, eos in ((folder, "</s>"), (folder / "tokenizer.json", "</s>"), (smollm2_path, "<|im_end|>")):
        assert load(tmp_path / "empty", source).eos_token == eos


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{", "cannot be read as a tokenizer"),
        ("tokenizer_config.json", "{", "cannot be read as JSON"),
        ("special_tokens_map.json", "[]", "must hold a JSON object, not list"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, file: str, content: str | None, complaint: str):
    folder = make_folder(tmp_path / "m", config={})
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(BadCheckpoint, match=complaint) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_source_is_named(tmp_path: Path):
    with pytest.raises(BadCheckpoint, match="nowhere: no such tokenizer"):
        load(tmp_path, tmp_path / "nowhere")


def test_importing_the_folder_brings_no_heavy_library():
    check = "import sys, headrace.text; print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
