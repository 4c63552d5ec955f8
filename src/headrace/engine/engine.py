"""The engine: one model, one scheduler, one step at a time. Owned by one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import ConfigError
from headrace.core.request import EngineInfo, Request, SequenceOutput, StepOutput, StepStats
from headrace.engine.kv_cache import KvCache, size_cache
from headrace.engine.machine import usable_cores
from headrace.engine.runner import Runner
from headrace.engine.sampler import Sampler
from headrace.hub import Checkpoint, WeightFormat, open_checkpoint
from headrace.kernels import select_ops
from headrace.models import build_model
from headrace.schedule import Scheduler
from headrace.weights import load_weights

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called while weights are read, with the bytes done and the bytes in all."""


class Engine:
    """Loads the checkpoint at construction. Raises `BadCheckpoint` or `ConfigError` if that is impossible."""

    @classmethod
    def load(cls, model_path: str, config: EngineConfig, progress: Progress | None = None) -> Engine:
        """An engine for a checkpoint on this machine. Raises `StartupError`."""
        return cls(open_checkpoint(model_path), config, progress)

    def __init__(self, checkpoint: Checkpoint, config: EngineConfig, progress: Progress | None = None) -> None:
        began = time.monotonic()
        device = _select_device(config.device)
        if device.type == "cpu":
            torch.set_num_threads(config.threads or usable_cores())
        dtype = _select_dtype(config.dtype, checkpoint, device)
        model = build_model(checkpoint.config, select_ops(device), dtype=dtype, device=device)
        load_weights(model, checkpoint, progress)

        num_blocks, max_model_len = size_cache(model.spec, config, dtype=dtype, device=device)
        kv_cache = KvCache(model.spec, num_blocks=num_blocks, block_size=config.block_size, dtype=dtype, device=device)
        sampler = Sampler(model.spec.vocab_size, device)
        self._runner = Runner(model, kv_cache, sampler, block_size=config.block_size, device=device)
        self._scheduler = Scheduler(
            num_blocks=num_blocks,
            block_size=config.block_size,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_model_len=max_model_len,
            enable_prefix_caching=config.enable_prefix_caching,
            policy=config.scheduling_policy,
        )
        self.info = EngineInfo(
            architecture=checkpoint.config["architectures"][0],
            vocab_size=model.spec.vocab_size,
            max_model_len=max_model_len,
            dtype=str(dtype).removeprefix("torch."),
            device=str(device),
            kernels="reference",
            block_size=config.block_size,
            num_blocks=num_blocks,
            load_seconds=time.monotonic() - began,
        )

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def stats(self) -> StepStats:
        """The state between steps: nothing computed, nothing generated."""
        return self._scheduler.stats

    def add(self, request: Request) -> None:
        """Queue a request. Raises `BadRequest` if it can never run."""
        self._scheduler.add(request)

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        """End one choice, or all; unknown ids are ignored, since the request may just have finished."""
        return self._scheduler.abort(request_id, choice)

    def step(self) -> StepOutput | None:
        """Run one step. None if nothing can run. A failure of the forward pass ends the sequences it was for."""
        plan = self._scheduler.plan()
        if plan is None:
            return None
        try:
            result = self._runner.run(plan)
        except torch.AcceleratorError:
            raise  # the device has failed, and every later step on it would too: only a new process can go on
        except Exception as error:
            log.exception("A step of %d sequences failed.", len(plan.rows))
            self._runner.scrub(plan.rows)
            return self._scheduler.fail(plan, f"The engine failed while running this request: {error}")
        return self._scheduler.commit(plan, result)


def _select_device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this build of torch finds no CUDA device. Use --device cpu.")
    return torch.device(wanted)


def _select_dtype(wanted: str, checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """`auto` is half precision on a GPU: the checkpoint's own kind if it has one, else bfloat16, whose range is that of
    float32. The reference kernels on a CPU are fastest in float32.
    """
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cpu":
        return torch.float32
    if checkpoint.format is WeightFormat.GGUF:
        return torch.bfloat16
    stored = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "bfloat16"
    return torch.float16 if stored == "float16" else torch.bfloat16
