"""Which models a server gets: one, a list of them in a YAML file, or the pair that nobody asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.config.engine import EngineConfig
from headrace.config.load import load_config
from headrace.config.sections import ModelConfig, ServeConfig, ServedModelConfig
from headrace.core.errors import ConfigError

Load = Callable[..., ServeConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(yaml, *flags, **environment)`"""

    def load(text: str, *flags: str, **environment: str) -> ServeConfig:
        path = tmp_path / "models.yaml"
        path.write_text(text)
        return load_config(["--config", str(path), *flags], environment)

    return load


@pytest.fixture
def refused(load: Load) -> Callable[..., str]:
    def refused(text: str, *flags: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, *flags)
        return caught.value.message

    return refused


def by_name(config: ServeConfig) -> dict[str, ServedModelConfig]:
    return {served.names[0]: served for served in config.served}


def test_one_model_is_the_tree_itself() -> None:
    config = load_config(["some/model", "--served-model-name", "a", "b", "--max-num-seqs", "3"], {})
    (served,) = config.served
    assert served == ServedModelConfig(model=config.model, engine=config.engine, limits=config.limits)
    assert (served.names, served.engine.max_num_seqs, served.lazy) == (("a", "b"), 3, False)
    assert ServeConfig().served[0].names == ("smollm2",)


def test_nothing_said_is_a_generator_and_an_embedder_on_first_use() -> None:
    flags = ["--max-model-len", "1k", "--threads", "2", "--max-num-queued-reqs", "5", "--dtype", "float32"]
    first, second = load_config(flags, {}).served
    assert (first.names, first.lazy) == (("smollm2",), False)
    assert (second.names, second.lazy) == (("minilm",), True)
    assert first.engine == EngineConfig(max_model_len=1000, threads=2, dtype="float32")
    assert second.engine == EngineConfig(threads=2)
    assert second.limits.max_num_queued_reqs == 5


@pytest.mark.parametrize("flags", [["minilm"], ["--model", "minilm"], ["--served-model-name", "minilm"]])
def test_the_embedder_comes_once(flags: list[str]) -> None:
    assert [served.names for served in load_config(flags, {}).served] == [("minilm",)]


def test_the_variable_names_a_model_as_well() -> None:
    assert [served.names for served in load_config([], {"HEADRACE_MODEL": "gemma3-270m"}).served] == [("gemma3-270m",)]


def test_entries_have_their_own_knobs_and_share_the_others(load: Load) -> None:
    models = by_name(
        load(
            """
            max-num-seqs: 8
            max_logprobs: 3
            port: 81
            models:
              - name: [chat, gpt]
                path: smollm2
                max-model-len: 2K
                max-num-seqs: 2
                chat-template: "{{ 1 }}"
              - minilm
              - path: org/reranker
                task: score
                pooler-config: {use_activation: false}
                lazy: true
                enable-lora: false
            """,
            "--threads=1",
            HEADRACE_BLOCK_SIZE="32",
        )
    )
    assert list(models) == ["chat", "minilm", "org/reranker"]
    chat, minilm, reranker = models.values()
    assert chat.model == ModelConfig(model="smollm2", served_model_name=("chat", "gpt"), chat_template="{{ 1 }}")
    assert chat.engine == EngineConfig(max_model_len=2048, max_num_seqs=2, threads=1, block_size=32)
    assert minilm.engine == EngineConfig(max_num_seqs=8, threads=1, block_size=32)
    assert reranker.engine.wanted_role == ("pooling", "classify")
    assert reranker.engine.pooler_config == {"use_activation": False}
    assert [served.lazy for served in models.values()] == [False, False, True]
    assert {served.limits.max_logprobs for served in models.values()} == {3}


def test_isolate(load: Load) -> None:
    assert load("isolate: true\nmodels: [a, b]").isolate is True
    assert load_config(["a", "--isolate"], {}).isolate is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: []", "must be a list of models"),
        ("models: smollm2", "must be a list of models"),
        ("models: [3]", "entry 1 must be a model or `key: value` pairs, got 3"),
        ("models: [a, {name: b}]", "entry 2 names no model: it needs `path`"),
        ("models: [{path: a, nmae: b}]", "entry 1: unknown key 'nmae'; did you mean name?"),
        ("models: [{path: a, max-modle-len: 1}]", "entry 1: unknown key 'max-modle-len'; did you mean max-model-len?"),
        ("models: [{path: a, port: 1}]", "entry 1: 'port' is for the whole server; it stands outside `models`"),
        ("models: [{path: a, lora-modules: x}]", "entry 1: 'lora-modules' is not implemented yet"),
        ("models: [{path: a, model: b}]", "entry 1: 'model' says what another key says already"),
        ("models: [{path: a, lazy: 3}]", "entry 1: 'lazy' must be true or false, got 3"),
        ("models: [{path: a, max-num-seqs: 0}]", "entry 1: 'max-num-seqs' must be at least 1, got 0"),
        ("models: [{path: a, max-num-seqs: }]", "entry 1: 'max-num-seqs' must not be empty"),
        ("models: [{path: a, tokens-only: true, tokenizer: b}]", "entry 1: --tokens-only and --tokenizer exclude"),
        ("models: [a, a]", "'a' is the name of two models"),
        ("models: [{path: a, name: [x, y]}, {path: b, name: y}]", "'y' is the name of two models"),
        ("models: [a]\nrevision: main", "'revision' in .*: with several models, give it in the entry"),
        ("modles: [a]", "unknown key 'modles' in .*; did you mean models?"),
    ],
)
def test_what_makes_no_sense_is_refused(refused: Callable[..., str], text: str, message: str) -> None:
    assert re.search(message, refused(text))


def test_a_list_and_a_model_contradict_each_other(refused: Callable[..., str]) -> None:
    assert refused("models: [a]", "smollm2").startswith("MODEL: with several models")
    assert refused("models: [a]", "--served-model-name", "x").startswith("--served-model-name: with several models")
