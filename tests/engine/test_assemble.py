"""Which kernels and which precision a decoder gets, and what is refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import ConfigError
from headrace.engine.assemble import build_decoder, select_native_kernels
from headrace.hub import Checkpoint, WeightFormat, open_checkpoint
from headrace.models import NativeDecoder, TorchDecoder, read_blueprint

CPU = torch.device("cpu")
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
FLOAT = Checkpoint(name="tiny", path=Path("tiny"), format=WeightFormat.SAFETENSORS, config=LLAMA)


def build(checkpoint: Checkpoint = FLOAT, device: torch.device = CPU, **config: Any) -> TorchDecoder | NativeDecoder:
    engine = EngineConfig(**config)
    kernels = select_native_kernels(engine, device)
    return build_decoder(read_blueprint(checkpoint.config), checkpoint, engine, device, kernels)


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "headrace.kernels.cpu._native", None)


@pytest.fixture
def native() -> None:
    pytest.importorskip("headrace.kernels.cpu._native")


def test_the_native_kernels_are_taken_where_they_are(native: None, caplog: pytest.LogCaptureFixture) -> None:
    assert build().kernels.startswith("native ")
    assert build(kernels="reference").kernels == "reference"
    assert caplog.messages == []


@pytest.mark.usefixtures("without_library")
def test_without_the_library_the_reference_kernels_run_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = build()
    assert (model.kernels, model.precision) == ("reference", "float32")
    assert caplog.messages == [
        "Running on the reference kernels, which are much slower: "
        "this installation was built without the native library."
    ]


@pytest.mark.usefixtures("without_library")
def test_asked_for_by_name_they_must_be_there() -> None:
    with pytest.raises(ConfigError, match="--kernels native: this installation was built without"):
        build(kernels="native")


def test_native_kernels_are_for_a_cpu() -> None:
    with pytest.raises(ConfigError, match="--kernels native: they are for a CPU, and the device is meta"):
        build(device=torch.device("meta"), kernels="native")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_reference_kernels_compute_in_the_dtype(dtype: str) -> None:
    model = build(kernels="reference", dtype=dtype)
    assert model.precision == dtype
    assert model.kv_layout(4, "auto").dtype == model.kv_layout(4, dtype).dtype == dtype
    with pytest.raises(ConfigError, match=f"--kv-cache-dtype int8: .* in the model's dtype, {dtype}"):
        model.kv_layout(4, "int8")


def test_only_the_native_kernels_quantise() -> None:
    with pytest.raises(ConfigError, match="--quantization int8 needs the native CPU kernels"):
        build(kernels="reference", quantization="int8")


def test_what_is_quantised_is_not_quantised_again(native: None, smollm2_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--quantization int4: .*\.gguf is quantised already \(Q4_1, Q8_0\)"):
        build(open_checkpoint(str(smollm2_path)), quantization="int4")


def test_dtype_and_quantization_contradict_each_other(native: None) -> None:
    with pytest.raises(ConfigError, match="--quantization int8 and --dtype float16 contradict each other"):
        build(quantization="int8", dtype="float16")
