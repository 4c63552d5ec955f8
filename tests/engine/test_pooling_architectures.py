"""Every architecture that pools against transformers, on tiny random checkpoints: inputs of many lengths at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pooling_driver import DECODER, ENCODER, close, load, pool, random_inputs, write_model

from headrace.core.pooling import PoolingTask

DISTILBERT = {
    "vocab_size": 97,
    "dim": 64,
    "hidden_dim": 96,
    "n_layers": 3,
    "n_heads": 4,
    "max_position_embeddings": 130,
    "pad_token_id": 1,
}
MODERNBERT = {**ENCODER, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3, "num_hidden_layers": 4}

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", ENCODER),
    "bert_tanh_gelu": ("bert", {**ENCODER, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    "roberta": ("roberta", {**ENCODER, "type_vocab_size": 1}),
    "xlm_roberta": ("xlm-roberta", {**ENCODER, "type_vocab_size": 1}),
    "camembert": ("camembert", {**ENCODER, "type_vocab_size": 1, "hidden_act": "relu"}),
    "distilbert": ("distilbert", DISTILBERT),
    "electra": ("electra", {**ENCODER, "embedding_size": 32}),
    "electra_wide": ("electra", {**ENCODER, "embedding_size": 64}),
    "mpnet": ("mpnet", ENCODER),
    "modernbert": ("modernbert", MODERNBERT),
    "modernbert_with_biases": (
        "modernbert",
        {
            **MODERNBERT,
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "classifier_bias": True,
            "classifier_pooling": "mean",
        },
    ),
    "nomic_bert": ("nomic_bert", {**ENCODER, "hidden_act": "silu"}),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {**DECODER, "head_dim": 32}),
    "qwen2": ("qwen2", DECODER),
    "llama": ("llama", DECODER),
    "mistral": ("mistral", {**DECODER, "sliding_window": 9}),
}
MODELS = ENCODERS | DECODERS
KERNELS = ("reference", "native")


@pytest.fixture(params=KERNELS)
def kernels(request) -> str:
    if request.param == "native":
        pytest.importorskip("headrace.kernels.cpu._native")
    return request.param


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """`written(name, kind)`: the model's folder and what transformers makes of it; each is written once."""
    made: dict[tuple[str, str], tuple[Path, Any]] = {}

    def write(name: str, kind: str) -> tuple[Path, Any]:
        if (name, kind) not in made:
            model_type, config = MODELS[name]
            folder = tmp_path_factory.mktemp(name)
            labels = {} if kind == "Model" else {"num_labels": 3}
            made[name, kind] = folder, write_model(folder, model_type, kind, **config, **labels)
        return made[name, kind]

    return write


def outputs(model: Any, ids: list[int], **inputs: Any) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([ids]), **inputs)


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states(name, written, kernels):
    folder, model = written(name, "Model")
    inputs = random_inputs()
    engine = load(folder, kernels=kernels)

    states = pool(engine, inputs, PoolingTask.TOKEN_EMBED, use_activation=False)

    assert engine.info.kernels.startswith(kernels)
    for ids, ours in zip(inputs, states, strict=True):
        close(ours, outputs(model, ids).last_hidden_state[0])


@pytest.mark.parametrize("name", MODELS)
def test_sequence_classifiers(name, written, kernels):
    folder, model = written(name, "ModelForSequenceClassification")
    inputs = random_inputs()
    engine = load(folder, kernels=kernels)

    raw = pool(engine, inputs, PoolingTask.CLASSIFY, use_activation=False)
    scores = pool(engine, inputs, PoolingTask.CLASSIFY)

    for ids, logits, probabilities in zip(inputs, raw, scores, strict=True):
        expected = outputs(model, ids).logits[0]
        close(logits, expected)
        close(probabilities, expected.softmax(-1))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("bert_tanh_gelu", "electra_wide")])
def test_token_classifiers(name, written, kernels):
    folder, model = written(name, "ModelForTokenClassification")
    inputs = random_inputs()
    engine = load(folder, kernels=kernels)

    raw = pool(engine, inputs, PoolingTask.TOKEN_CLASSIFY, use_activation=False)

    assert engine.info.pooling.tasks == (PoolingTask.TOKEN_CLASSIFY,)
    for ids, logits in zip(inputs, raw, strict=True):
        close(logits, outputs(model, ids).logits[0])


@pytest.mark.parametrize("name", ["bert", "electra", "nomic_bert"])
def test_token_types(name, written, kernels):
    """Inputs with types beside inputs without: these are all of type 0."""
    folder, model = written(name, "Model")
    inputs = random_inputs((9, 5, 12))
    types = [[0] * 4 + [1] * 5, None, [1] * 12]
    engine = load(folder, kernels=kernels)

    states = pool(engine, inputs, PoolingTask.TOKEN_EMBED, types=types, use_activation=False)

    for ids, own, ours in zip(inputs, types, states, strict=True):
        given = torch.tensor([own or [0] * len(ids)])
        close(ours, outputs(model, ids, token_type_ids=given).last_hidden_state[0])


@pytest.mark.parametrize("name", ["bert", "modernbert", "qwen3"])
def test_an_input_does_not_depend_on_its_neighbours(name, written, kernels):
    folder, _ = written(name, "Model")
    inputs = random_inputs()
    engine = load(folder, kernels=kernels)

    together = pool(engine, inputs, PoolingTask.EMBED)
    alone = [pool(engine, [ids], PoolingTask.EMBED)[0] for ids in inputs]

    for ours, theirs in zip(together, alone, strict=True):
        close(ours, torch.tensor(theirs), atol=1e-6)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_decoders_that_were_made_to_generate(name, tmp_path, kernels):
    """`--runner pooling` takes the hidden state of the last token; the output matrix is not read."""
    model_type, config = MODELS[name]
    model = write_model(tmp_path, model_type, "ModelForCausalLM", **config)
    inputs = random_inputs()

    vectors = pool(load(tmp_path, kernels=kernels, runner="pooling"), inputs, PoolingTask.EMBED)

    for ids, ours in zip(inputs, vectors, strict=True):
        expected = outputs(model.model, ids).last_hidden_state[0, -1]
        close(ours, torch.nn.functional.normalize(expected, dim=-1))


@pytest.mark.parametrize("kind", ["ModelForMaskedLM", "ModelForSequenceClassification"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "modernbert", "electra", "nomic_bert"])
def test_checkpoints_with_a_head_embed_without_it(name, kind, tmp_path):
    model_type, config = MODELS[name]
    model = write_model(tmp_path, model_type, kind, **config)
    inputs = random_inputs((11, 3))

    vectors = pool(load(tmp_path, convert="embed", kernels="reference"), inputs, PoolingTask.EMBED)

    for ids, ours in zip(inputs, vectors, strict=True):
        expected = outputs(model.base_model, ids).last_hidden_state[0, 0]
        close(ours, torch.nn.functional.normalize(expected, dim=-1))
