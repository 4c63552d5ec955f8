"""What a checkpoint is for: the table of architectures, the files of sentence-transformers, and the flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.config.engine import EngineConfig
from headrace.core.errors import BadCheckpoint, ConfigError
from headrace.core.pooling import PoolingTask
from headrace.hub import Checkpoint, GgufHeader, ModelRole, Runner, WeightFormat, model_role

EMBED = (PoolingTask.EMBED, PoolingTask.TOKEN_EMBED)
CLASSIFY = (PoolingTask.CLASSIFY, PoolingTask.TOKEN_CLASSIFY)
TOKEN_CLASSIFY = (PoolingTask.TOKEN_CLASSIFY,)
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def role(architecture: str, folder: Path = Path("nowhere"), **flags: Any) -> ModelRole:
    checkpoint = Checkpoint(
        name="the model", path=folder, format=WeightFormat.SAFETENSORS, config={"architectures": [architecture]}
    )
    return model_role(checkpoint, EngineConfig(**flags))


@pytest.fixture
def sentence_folder(tmp_path: Path) -> Path:
    return write_pooling(tmp_path, {"pooling_mode_lasttoken": True})


def write_pooling(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(MODULES))
    return folder


@pytest.mark.parametrize(
    "architecture",
    ["LlamaForCausalLM", "T5ForConditionalGeneration", "QWenLMHeadModel", "ChatGLMChatModel"],
)
def test_models_that_generate(architecture):
    assert role(architecture) == ModelRole(Runner.GENERATE)


@pytest.mark.parametrize(
    ("architecture", "tasks"),
    [
        ("BertModel", EMBED),
        ("Qwen3Model", EMBED),
        ("BertForMaskedLM", EMBED),
        ("ElectraForPreTraining", EMBED),
        ("XEmbeddingModel", EMBED),
        ("CLIPForTextEncoding", EMBED),
        ("Qwen2RewardModel", EMBED),
        ("BertForSequenceClassification", CLASSIFY),
        ("Qwen3ForSequenceClassification", CLASSIFY),
        ("XClassificationModel", CLASSIFY),
        ("BertForTokenClassification", TOKEN_CLASSIFY),
    ],
)
def test_models_that_pool(architecture, tasks):
    assert role(architecture) == ModelRole(Runner.POOLING, tasks)
    assert role(architecture, runner="pooling") == ModelRole(Runner.POOLING, tasks)


def test_sentence_transformers_makes_an_embedder_of_a_model_that_generates(sentence_folder):
    assert role("Qwen3ForCausalLM", sentence_folder) == ModelRole(Runner.POOLING, EMBED)
    assert role("Qwen3ForCausalLM", sentence_folder, runner="generate") == ModelRole(Runner.GENERATE)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, ModelRole(Runner.POOLING, EMBED)),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 0}, ModelRole(Runner.GENERATE)),
        ({"general.architecture": "qwen3"}, ModelRole(Runner.GENERATE)),
    ],
)
def test_gguf_files_say_it_themselves(metadata, expected):
    checkpoint = Checkpoint(
        name="the model",
        path=Path("model.gguf"),
        format=WeightFormat.GGUF,
        config={"architectures": ["Qwen3ForCausalLM"]},
        gguf=GgufHeader(metadata, {}),
    )

    assert model_role(checkpoint, EngineConfig()) == expected


def test_a_classifier_with_files_of_sentence_transformers_stays_one(sentence_folder):
    assert role("BertForSequenceClassification", sentence_folder) == ModelRole(Runner.POOLING, CLASSIFY)


def test_vectors_of_several_modes_are_none_of_tokens(tmp_path):
    folder = write_pooling(tmp_path, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True})

    assert role("BertModel", folder) == ModelRole(Runner.POOLING, (PoolingTask.EMBED,))


@pytest.mark.parametrize(
    "flags", [{"runner": "pooling"}, {"convert": "embed"}, {"task": "embed"}, {"runner": "pooling", "convert": "embed"}]
)
def test_a_model_that_generates_embeds_when_asked_to(flags):
    assert role("Qwen3ForCausalLM", **flags) == ModelRole(Runner.POOLING, EMBED)


def test_a_classifier_embeds_when_asked_to():
    assert role("BertForSequenceClassification", task="embed") == ModelRole(Runner.POOLING, EMBED)


@pytest.mark.parametrize("task", ["score", "classify"])
def test_old_names_of_tasks(task):
    assert role("BertForSequenceClassification", task=task) == ModelRole(Runner.POOLING, CLASSIFY)
    assert role("BertForTokenClassification", task=task) == ModelRole(Runner.POOLING, TOKEN_CLASSIFY)


def test_the_pooler_config_names_the_default():
    assert role("BertModel", pooler_config={"task": "token_embed"}).tasks == EMBED[::-1]
    with pytest.raises(ConfigError, match="task classify: the model can do: embed, token_embed"):
        role("BertModel", pooler_config={"task": "classify"})


@pytest.mark.parametrize(
    ("architecture", "flags", "message"),
    [
        ("BertModel", {"runner": "generate"}, r"\(BertModel\) is not a model that generates text.*--runner pooling"),
        ("BertModel", {"task": "generate"}, "is not a model that generates text"),
        ("BertModel", {"task": "score"}, "has no layer that makes scores; it can embed: --convert embed"),
        ("LlamaForCausalLM", {"task": "classify"}, "it can generate text, or embed"),
        ("LlamaForCausalLM", {"runner": "pooling", "convert": "none"}, "pools only if it is converted"),
        ("LlamaForCausalLM", {"runner": "generate", "convert": "embed"}, "converted to pool, not to generate"),
    ],
)
def test_what_cannot_be_had(architecture, flags, message):
    with pytest.raises(ConfigError, match=message):
        role(architecture, **flags)


def test_unknown_architectures():
    with pytest.raises(BadCheckpoint, match="nothing is known of architecture 'Whatever'"):
        role("Whatever")


@pytest.mark.parametrize(
    "flags",
    [
        {"task": "embed", "runner": "generate"},
        {"task": "embed", "convert": "classify"},
        {"task": "generate", "convert": "embed"},
    ],
)
def test_flags_that_contradict_each_other(flags):
    with pytest.raises(ConfigError, match="contradict each other"):
        EngineConfig(**flags)
