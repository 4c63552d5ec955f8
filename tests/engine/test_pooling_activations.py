"""What scores and vectors go through in the end: the model's own choice, the flags', the request's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pooling_driver import ENCODER, close, load, pool, random_inputs, write_model

from headrace.core.errors import BadCheckpoint, BadRequest, ConfigError
from headrace.core.pooling import PoolingParams, PoolingRequest, PoolingTask
from headrace.engine.pooling_head import score_function
from headrace.hub import SentenceFiles
from headrace.models.functions import Function

SIGMOID, TANH = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.activation.Tanh"


@pytest.mark.parametrize(
    ("config", "saved", "num_labels", "expected"),
    [
        ({}, None, 1, Function.SIGMOID),
        ({}, None, 3, Function.SOFTMAX),
        ({"problem_type": "regression"}, None, 1, Function.IDENTITY),
        ({"problem_type": "single_label_classification"}, None, 3, Function.SOFTMAX),
        ({"problem_type": "single_label_classification"}, None, 1, Function.SIGMOID),
        ({"problem_type": "multi_label_classification"}, None, 3, Function.SIGMOID),
        ({"problem_type": "regression", "sentence_transformers": {"activation_fn": SIGMOID}}, None, 1, "identity"),
        ({"sentence_transformers": {"activation_fn": TANH}}, SIGMOID, 1, Function.TANH),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, None, 1, Function.IDENTITY),
        ({}, TANH, 3, Function.TANH),
        ({"sentence_transformers": {"activation_fn": "somebody.Evil"}}, None, 1, Function.SIGMOID),
    ],
)
def test_what_scores_go_through(config, saved, num_labels, expected):
    assert score_function(config, SentenceFiles(activation=saved), num_labels) == expected


def test_an_activation_that_is_not_supported():
    with pytest.raises(BadCheckpoint, match="'Hardswish' is not supported; supported: Identity, "):
        score_function({}, SentenceFiles(activation="torch.nn.modules.activation.Hardswish"), 1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("classifier")
    labels = {0: "calm", 1: "angry", 2: "sad"}
    return folder, write_model(folder, "bert", "ModelForSequenceClassification", **ENCODER, id2label=labels)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("embedder")
    return folder, write_model(folder, "bert", **ENCODER)


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def cls_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).last_hidden_state[0, 0]


def test_scores_are_shifted_and_scaled_first(classifier):
    folder, model = classifier
    [ids] = random_inputs([12])
    engine = load(folder, pooler_config={"logit_mean": 0.5, "logit_sigma": 2.0})

    [scores] = pool(engine, [ids], PoolingTask.CLASSIFY)
    [raw] = pool(engine, [ids], PoolingTask.CLASSIFY, use_activation=False)

    expected = (logits_of(model, ids) - 0.5) / 2.0
    close(raw, expected)
    close(scores, expected.softmax(-1))


def test_the_flags_switch_the_activation_off(classifier):
    folder, model = classifier
    [ids] = random_inputs([12])
    engine = load(folder, pooler_config={"use_activation": False})

    [raw] = pool(engine, [ids], PoolingTask.CLASSIFY)
    [scores] = pool(engine, [ids], PoolingTask.CLASSIFY, use_activation=True)

    close(raw, logits_of(model, ids))
    close(scores, logits_of(model, ids).softmax(-1))
    assert not engine.info.pooling.use_activation


def test_labels(classifier, embedder):
    assert load(classifier[0]).info.pooling.labels == ("calm", "angry", "sad")
    assert load(embedder[0]).info.pooling.labels == ()


def test_scores_for_each_token(classifier):
    folder, model = classifier
    [ids] = random_inputs([6])

    [scores] = pool(load(folder), [ids], PoolingTask.TOKEN_CLASSIFY)

    assert scores.shape == (6, 3)
    close(scores[0], logits_of(model, ids).softmax(-1))  # BERT's scores of a sequence are those of its first token
    np.testing.assert_allclose(scores.sum(1), 1.0, atol=1e-5)


def test_vectors_are_normalised_unless_told_otherwise(embedder):
    folder, model = embedder
    [ids] = random_inputs([12])
    engine = load(folder)

    [unit] = pool(engine, [ids], PoolingTask.EMBED)
    [plain] = pool(engine, [ids], PoolingTask.EMBED, use_activation=False)
    [tokens] = pool(engine, [ids], PoolingTask.TOKEN_EMBED)

    close(plain, cls_of(model, ids))
    close(unit, torch.nn.functional.normalize(cls_of(model, ids), dim=-1))
    close(tokens[0], torch.tensor(unit))
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1.0, atol=1e-5)


def test_the_flags_choose_the_pooling(embedder):
    folder, model = embedder
    [ids] = random_inputs([12])
    with torch.inference_mode():
        states = model(torch.tensor([ids])).last_hidden_state[0]

    [mean] = pool(load(folder, pooler_config={"pooling_type": "MEAN"}), [ids], PoolingTask.EMBED, use_activation=False)
    [last] = pool(load(folder, pooler_config={"pooling_type": "last"}), [ids], PoolingTask.EMBED, use_activation=False)

    close(mean, states.mean(0))
    close(last, states[-1])


@pytest.mark.parametrize("overrides", [{"is_matryoshka": True}, {"matryoshka_dimensions": [8, 16]}])
def test_shortened_vectors_are_normalised_again(embedder, overrides):
    folder, model = embedder
    [ids] = random_inputs([12])
    engine = load(folder, hf_overrides=overrides)

    [unit] = pool(engine, [ids], PoolingTask.EMBED, dimensions=8)
    [plain] = pool(engine, [ids], PoolingTask.EMBED, dimensions=8, use_activation=False)

    close(plain, cls_of(model, ids)[:8])
    close(unit, torch.nn.functional.normalize(cls_of(model, ids)[:8], dim=-1))


def test_the_flags_shorten_vectors(embedder):
    folder, _ = embedder
    engine = load(folder, hf_overrides={"is_matryoshka": True}, pooler_config={"dimensions": 8})

    [short] = pool(engine, random_inputs([3]), PoolingTask.EMBED)
    [long] = pool(engine, random_inputs([3]), PoolingTask.EMBED, dimensions=64)

    assert (short.shape, long.shape) == ((8,), (64,))


def test_dimensions_that_the_flags_cannot_have(embedder):
    with pytest.raises(ConfigError, match="--pooler-config: This model does not support Matryoshka"):
        load(embedder[0], pooler_config={"dimensions": 8})


@pytest.mark.parametrize(
    ("overrides", "params", "message"),
    [
        ({}, {"task": PoolingTask.EMBED, "dimensions": 8}, "dimensions must be unset"),
        ({"is_matryoshka": True}, {"task": PoolingTask.EMBED, "dimensions": 65}, "must be from 1 to 64 .* got 65"),
        ({"matryoshka_dimensions": [8, 16]}, {"task": PoolingTask.EMBED, "dimensions": 9}, "must be one of 8, 16"),
        ({}, {"task": PoolingTask.CLASSIFY}, "cannot do the task classify; it can do: embed, token_embed"),
    ],
)
def test_requests_that_are_refused(embedder, overrides, params, message):
    engine = load(embedder[0], hf_overrides=overrides)

    with pytest.raises(BadRequest, match=message):
        engine.add(PoolingRequest(request_id="a", prompt_ids=[5], params=PoolingParams(**params)))

    assert not engine.has_work


@pytest.mark.parametrize("wrong", [0, -1])
def test_dimensions_are_at_least_one(wrong):
    with pytest.raises(BadRequest, match="dimensions must be at least 1"):
        PoolingParams(task=PoolingTask.EMBED, dimensions=wrong)


def test_scores_have_no_dimensions():
    with pytest.raises(BadRequest, match="it makes scores, not vectors"):
        PoolingParams(task=PoolingTask.CLASSIFY, dimensions=1)


def test_the_saved_activation_of_a_classifier_counts(tmp_path):
    model = write_model(tmp_path, "bert", "ModelForSequenceClassification", **ENCODER, num_labels=1)
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"activation_fn": TANH}))
    [ids] = random_inputs([5])

    [score] = pool(load(tmp_path), [ids], PoolingTask.CLASSIFY)

    close(score, logits_of(model, ids).tanh())
