"""The engine around a model that pools: what it keeps, what fails alone, what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pooling_driver import DECODER, ENCODER, array, load, pool, random_inputs, run, write_model
from safetensors.torch import load_file, save_file

from headrace.config.engine import EngineConfig
from headrace.core.errors import BadCheckpoint, BadRequest, ConfigError
from headrace.core.pooling import PoolingParams, PoolingRequest, PoolingTask
from headrace.engine import Engine, load_engine
from headrace.engine.readout import NOT_FINITE

EMBED = PoolingParams(task=PoolingTask.EMBED)
POISON = 96
"""A token whose embedding is not a number in `poisoned` models."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    write_model(folder, "bert", **ENCODER)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    write_model(folder, "qwen3", **{**DECODER, "head_dim": 32})
    return folder


def poisoned(source: Path, folder: Path) -> Path:
    """The model with an embedding that is not a number."""
    tensors = load_file(source / "model.safetensors")
    [name] = [name for name in tensors if "word_embeddings" in name or "embed_tokens" in name]
    tensors[name][POISON] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    return folder


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("model", ["bert", "qwen"])
def test_an_input_whose_numbers_are_not_finite_fails_alone(model, kernels, tmp_path, request):
    source = request.getfixturevalue(model)
    inputs = random_inputs((5, 40, 1, 17))
    healthy = pool(load(source, kernels=kernels), inputs, PoolingTask.EMBED)
    engine = load(poisoned(source, tmp_path), kernels=kernels)

    inputs[1][20] = POISON
    ends = run(engine, inputs, EMBED)

    assert [end.error for end in ends] == [None, NOT_FINITE, None, None]
    assert (ends[1].shape, ends[1].data) == ([], b"")
    for number in (0, 2, 3):
        assert torch.allclose(torch.tensor(array(ends[number])), torch.tensor(healthy[number]), atol=1e-6)
    # What the step left behind harms nobody: the same memory serves the next.
    again = run(engine, random_inputs((5, 40, 1, 17)), EMBED)
    assert [end.error for end in again] == [None] * 4


def test_a_step_that_raises_ends_its_requests_only(bert, monkeypatch):
    engine = load(bert, max_num_seqs=2)
    for number, ids in enumerate(random_inputs((5, 3, 4))):
        engine.add(PoolingRequest(request_id=str(number), prompt_ids=ids, params=EMBED, arrival_time=number))

    with monkeypatch.context() as patched:
        patched.setattr(engine._backbone, "run", lambda requests: 1 / 0)
        failed = engine.step()
    survivor = engine.step()

    message = "The engine failed while running this request: division by zero"
    assert [(end.request_id, end.error) for end in failed.pooled] == [("0", message), ("1", message)]
    assert [(end.request_id, end.error) for end in survivor.pooled] == [("2", None)]
    assert not engine.has_work


def test_token_types_that_the_model_does_not_know(bert):
    engine = load(bert)

    with pytest.raises(BadRequest, match="token_type_ids must be below 2 for this model, got 2"):
        engine.add(PoolingRequest(request_id="a", prompt_ids=[5, 6], params=EMBED, token_type_ids=[0, 2]))

    assert not engine.has_work


def test_aborted_requests_are_never_run(bert):
    engine = load(bert)
    for number, ids in enumerate(random_inputs((5, 3))):
        engine.add(PoolingRequest(request_id=str(number), prompt_ids=ids, params=EMBED))

    engine.abort("0")
    engine.abort("unknown")
    output = engine.step()

    assert [end.request_id for end in output.pooled] == ["1"]
    assert engine.step() is None


def test_steps_keep_to_their_budgets(bert):
    engine = load(bert, max_num_batched_tokens=32, max_num_seqs=3)
    for number, ids in enumerate(random_inputs((10, 10, 10, 10, 100, 5))):
        engine.add(PoolingRequest(request_id=str(number), prompt_ids=ids, params=EMBED, arrival_time=number))

    counts = []
    while engine.has_work:
        output = engine.step()
        counts.append((len(output.pooled), output.stats.prompt_tokens))

    assert counts == [(3, 30), (1, 10), (1, 100), (1, 5)]


def test_a_step_of_native_kernels_holds_what_keeps_their_threads_busy(bert):
    pytest.importorskip("headrace.kernels.cpu._native")
    engine = load(bert, kernels="native", threads=2)
    for number, ids in enumerate(random_inputs([100] * 11)):
        engine.add(PoolingRequest(request_id=str(number), prompt_ids=ids, params=EMBED, arrival_time=number))

    assert [len(engine.step().pooled) for _ in range(3)] == [5, 5, 1]


def test_every_task_in_one_step(bert):
    engine = load(bert)
    [ids] = random_inputs([9])
    for task in (PoolingTask.TOKEN_EMBED, PoolingTask.EMBED):
        engine.add(PoolingRequest(request_id=task, prompt_ids=ids, params=PoolingParams(task=task)))

    tokens, vector = engine.step().pooled

    assert (tokens.shape, vector.shape) == ([9, 64], [64])
    assert torch.equal(torch.tensor(array(tokens))[0], torch.tensor(array(vector)))


def test_what_an_encoder_says_of_itself(bert):
    info = load(bert, kernels="reference").info

    assert (info.architecture, info.vocab_size, info.max_model_len) == ("BertModel", 97, 130)
    assert (info.dtype, info.device, info.kernels) == ("float32", "cpu", "reference")
    assert (info.num_blocks, info.kv_capacity) == (0, 0)
    assert info.pooling.tasks == (PoolingTask.EMBED, PoolingTask.TOKEN_EMBED)
    assert (info.pooling.embedding_size, info.pooling.max_seq_length, info.pooling.type_vocab_size) == (64, 130, 2)
    assert not info.pooling.is_causal


def test_a_decoder_has_memory_for_one_step(qwen):
    engine = load(qwen, max_num_batched_tokens=64, block_size=16)
    memory = engine._backbone._kv_cache.memory

    assert len(memory) == 1 + 128 // 16  # the longest sequence, and block 0
    assert engine.info.num_blocks == 0
    assert engine.info.pooling.max_seq_length is None
    assert pool(engine, random_inputs((128, 1, 64)), PoolingTask.EMBED)[0].shape == (64,)


def test_a_decoder_keeps_to_the_memory_it_is_given(qwen):
    per_block = len(load(qwen)._backbone._kv_cache.memory[0].flatten())
    engine = load(qwen, kv_cache_memory_bytes=3 * per_block)

    assert engine.info.max_model_len == 48
    assert len(pool(engine, random_inputs((48, 20, 17, 1)), PoolingTask.EMBED)) == 4
    with pytest.raises(ConfigError, match="--max-model-len 100 does not fit"):
        load(qwen, kv_cache_memory_bytes=3 * per_block, max_model_len=100)


@pytest.mark.parametrize(("given", "expected"), [(None, 130), (-1, 130), (20, 20)])
def test_the_longest_input_of_an_encoder(bert, given, expected):
    info = load(bert, max_model_len=given).info

    assert (info.max_model_len, info.pooling.max_seq_length) == (expected, expected)


def test_a_longer_input_than_the_model_was_made_for(bert):
    with pytest.raises(ConfigError, match="--max-model-len 131 is more than the 130 tokens"):
        load(bert, max_model_len=131)


@pytest.mark.parametrize(
    ("flags", "precision", "furthest"),
    [
        ({"dtype": "auto"}, "int16", 1e-4),
        ({"dtype": "float32"}, "float32", 1e-6),
        ({"dtype": "bfloat16"}, "bfloat16", 1e-3),
        ({"dtype": "auto", "quantization": "int8"}, "q8_0", 1e-2),
    ],
)
def test_the_precision_of_an_encoder_on_native_kernels(bert, flags, precision, furthest):
    """`furthest`: from 1, the cosine of a vector with the exact one."""
    pytest.importorskip("headrace.kernels.cpu._native")
    inputs = random_inputs()
    exact = pool(load(bert, kernels="reference"), inputs, PoolingTask.EMBED)

    engine = load(bert, **flags)
    vectors = pool(engine, inputs, PoolingTask.EMBED)

    assert engine.info.dtype == precision
    for ours, theirs in zip(vectors, exact, strict=True):
        assert 1.0 - float(ours @ theirs) < furthest


def test_the_reference_kernels_do_not_quantise(bert):
    with pytest.raises(ConfigError, match="--quantization int8 needs the native CPU kernels"):
        load(bert, dtype="auto", kernels="reference", quantization="int8")


def test_a_model_that_generates_is_loaded_to_generate(smollm2_path):
    config = EngineConfig(max_model_len=64)

    assert isinstance(load_engine(str(smollm2_path), config), Engine)


def test_gguf_files_embed_too(smollm2_path):
    engine = load(smollm2_path, dtype="auto", task="embed", max_model_len=64)

    [vector] = pool(engine, [[1, 2, 3]], PoolingTask.EMBED)

    assert vector.shape == (576,)
    assert engine.info.pooling.is_causal


def test_a_missing_classifier_is_named(bert, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
    config = (bert / "config.json").read_text().replace("BertModel", "BertForSequenceClassification")
    (tmp_path / "config.json").write_text(config)

    with pytest.raises(BadCheckpoint, match=r"tensors 'classifier\.weight', 'classifier\.bias' missing"):
        load(tmp_path)
