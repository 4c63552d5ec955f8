"""From a checkpoint and the flags to a model: on which device, on which kernels, in which precision."""

from __future__ import annotations

import logging
from typing import Any

import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import ConfigError
from headrace.core.machine import usable_cores
from headrace.hub import Checkpoint, WeightFormat
from headrace.kernels import select_ops
from headrace.kernels.cpu import CpuKernels, NoNativeLibrary, load_cpu_kernels
from headrace.models import (
    Blueprint,
    Decoder,
    Encoder,
    EncoderBlueprint,
    NativeDecoder,
    NativeEncoder,
    TorchDecoder,
    TorchEncoder,
    WeightStorage,
)

log = logging.getLogger(__name__)

_FLOAT_TYPES = ("F32", "F16", "BF16")


def select_device(config: EngineConfig) -> torch.device:
    """Raises `ConfigError` if it is not there."""
    wanted = config.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this build of torch finds no CUDA device. Use --device cpu.")
    return torch.device(wanted)


def build_decoder(
    blueprint: Blueprint, checkpoint: Checkpoint, config: EngineConfig, device: torch.device, kernels: CpuKernels | None
) -> Decoder[Any]:
    """The decoder without its weights, on the native `kernels` if there are some. Raises `ConfigError`."""
    if kernels is not None:
        return NativeDecoder(blueprint, kernels, _weight_storage(config, checkpoint))
    return TorchDecoder(blueprint, select_ops(device), dtype=_torch_dtype(config, checkpoint, device), device=device)


def build_encoder(
    blueprint: EncoderBlueprint,
    checkpoint: Checkpoint,
    config: EngineConfig,
    device: torch.device,
    kernels: CpuKernels | None,
) -> Encoder:
    """The same for an encoder. Where nothing is said of its precision, the native kernels keep it as 16-bit integers: a
    vector's cosine with the exact one stays above 0.9999, and it is made in two thirds of the time.
    """
    if kernels is not None:
        storage = _weight_storage(config, checkpoint)
        if storage is WeightStorage.AS_STORED:
            storage = WeightStorage.INT16
        return NativeEncoder(blueprint, kernels, storage)
    return TorchEncoder(blueprint, select_ops(device), dtype=_torch_dtype(config, checkpoint, device), device=device)


def share_threads(config: EngineConfig, device: torch.device, kernels: CpuKernels | None) -> None:
    """Have torch use the cores on a CPU, unless the library's threads do: beside them it would only take turns."""
    if device.type == "cpu":
        torch.set_num_threads(1 if kernels is not None else config.threads or usable_cores())


def select_native_kernels(config: EngineConfig, device: torch.device) -> CpuKernels | None:
    """None: the reference kernels are to run. Raises `ConfigError` if that is not what was asked for."""
    if config.kernels == "reference":
        return None
    if device.type != "cpu":
        if config.kernels == "native":
            raise ConfigError(f"--kernels native: they are for a CPU, and the device is {device}. Use --device cpu.")
        return None
    try:
        return load_cpu_kernels(config.threads or usable_cores())
    except NoNativeLibrary as reason:
        if config.kernels == "native":
            raise ConfigError(f"--kernels native: {reason}.") from None
        log.warning("Running on the reference kernels, which are much slower: %s.", reason)
        return None


def _weight_storage(config: EngineConfig, checkpoint: Checkpoint) -> WeightStorage:
    if config.quantization is None:
        return WeightStorage(config.dtype)
    flag = f"--quantization {config.quantization}"
    if config.dtype != "auto":
        raise ConfigError(f"{flag} and --dtype {config.dtype} contradict each other; leave one of them out.")
    types = {entry.type for entry in checkpoint.gguf.tensors.values()} if checkpoint.gguf is not None else set()
    if quantised := sorted(types.difference(_FLOAT_TYPES)):
        raise ConfigError(
            f"{flag}: {checkpoint.path} is quantised already ({', '.join(quantised)}); rounding it again would only "
            "lose more. The flag is for checkpoints with float weights."
        )
    return WeightStorage(config.quantization)


def _torch_dtype(config: EngineConfig, checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """`auto` is half precision on a GPU: the checkpoint's own kind if it has one, else bfloat16, whose range is that of
    float32. The reference kernels on a CPU are fastest in float32.
    """
    if config.quantization is not None:
        raise ConfigError(
            f"--quantization {config.quantization} needs the native CPU kernels, and these are the reference kernels."
        )
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if config.dtype != "auto":
        return dtypes[config.dtype]
    if device.type == "cpu":
        return torch.float32
    if checkpoint.format is WeightFormat.GGUF:
        return torch.bfloat16
    stored = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "bfloat16"
    return torch.float16 if stored == "float16" else torch.bfloat16
