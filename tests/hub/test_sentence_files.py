"""The files that sentence-transformers puts beside a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.core.errors import BadCheckpoint
from headrace.core.pooling import PoolingMode
from headrace.hub import DenseModule, NormModule, SentenceFiles, read_sentence_files


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def write_modules(folder: Path, *kinds: str) -> None:
    """Modules of these kinds after the transformer, each in the folder of its number and kind."""
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [
        {"path": f"{number}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(kinds, 1)
    ]
    write(folder, "modules.json", modules)


def test_a_folder_without_any(tmp_path):
    assert read_sentence_files(tmp_path) == SentenceFiles()
    assert read_sentence_files(tmp_path / "model.gguf") == SentenceFiles()


def test_minilm(minilm_path):
    files = read_sentence_files(minilm_path)

    assert files.modules.modes == (PoolingMode.MEAN,)
    assert files.modules.layers == ()
    assert files.modules.normalizes
    assert (files.max_seq_length, files.do_lower_case) == (256, False)


def test_everything_at_once(tmp_path):
    write_modules(tmp_path, "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode": ["max", "lasttoken"]})
    write(tmp_path, "2_Dense/config.json", {"in_features": 8, "out_features": 4, "bias": False})
    write(tmp_path, "3_LayerNorm/config.json", {"dimension": 4})
    write(tmp_path, "sentence_roberta_config.json", {"max_seq_length": None, "do_lower_case": True})
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 77})
    general = {"prompts": {"query": "Query: "}, "default_prompt_name": "query", "activation_fn": "torch.x.Sigmoid"}
    write(tmp_path, "config_sentence_transformers.json", general)

    files = read_sentence_files(tmp_path)

    assert files.modules.modes == (PoolingMode.MAX, PoolingMode.LAST)
    assert files.modules.layers == (
        DenseModule(path=tmp_path / "2_Dense", in_features=8, out_features=4, bias=False, function="Tanh"),
        NormModule(path=tmp_path / "3_LayerNorm", size=4),
    )
    assert files.modules.normalizes
    assert (files.max_seq_length, files.do_lower_case) == (77, True)
    assert (files.prompts, files.default_prompt_name) == ({"query": "Query: "}, "query")
    assert files.activation == "torch.x.Sigmoid"


def test_switches_in_the_order_of_their_vectors(tmp_path):
    write_modules(tmp_path, "Pooling")
    switches = {f"pooling_mode_{mode}": True for mode in ("lasttoken", "mean_sqrt_len_tokens", "cls_token")}
    write(tmp_path, "1_Pooling/config.json", switches)

    modes = read_sentence_files(tmp_path).modules.modes

    assert modes == (PoolingMode.CLS, PoolingMode.MEAN_SQRT_LEN, PoolingMode.LAST)


def test_a_tokenizer_without_a_limit(tmp_path):
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 10**30})

    assert read_sentence_files(tmp_path).max_seq_length is None


@pytest.mark.parametrize(
    ("kinds", "configs", "message"),
    [
        (["Pooling", "CNN"], {}, r"module 2, .*CNN, is not supported there"),
        (["Normalize", "Pooling"], {}, r"module 1, .*Normalize, is not supported there"),
        (["Pooling"], {"1_Pooling": {"pooling_mode": "median"}}, "pooling mode 'median' is not supported"),
        (["Pooling", "Dense"], {"2_Dense": {"out_features": 3}}, "'in_features' is missing"),
        (["Pooling", "Dense"], {"2_Dense": {"use_residual": True}}, "only layers from 'sentence_embedding' to itself"),
        (["Pooling", "Dense"], {"2_Dense": {"module_input_name": "token_embeddings"}}, "to itself are supported"),
        (["Pooling", "LayerNorm"], {"2_LayerNorm": {}}, "'dimension' is missing"),
    ],
)
def test_refused(tmp_path, kinds, configs, message):
    write_modules(tmp_path, *kinds)
    for folder, config in configs.items():
        write(tmp_path, f"{folder}/config.json", config)

    with pytest.raises(BadCheckpoint, match=message):
        read_sentence_files(tmp_path)


def test_a_damaged_list(tmp_path):
    write(tmp_path, "modules.json", [{"type": "sentence_transformers.models.Pooling"}])

    with pytest.raises(BadCheckpoint, match="each with 'type' and 'path'"):
        read_sentence_files(tmp_path)
