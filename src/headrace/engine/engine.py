"""The engine: one model, one scheduler, one step at a time. Owned by one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from headrace.config.engine import EngineConfig
from headrace.core.request import EngineInfo, Request, SequenceOutput, StepOutput, StepStats
from headrace.engine.assemble import build_decoder, select_device, select_native_kernels
from headrace.engine.kv_cache import KvCache, size_cache
from headrace.engine.machine import usable_cores
from headrace.engine.runner import Runner
from headrace.engine.sampler import Sampler
from headrace.hub import Checkpoint, open_checkpoint
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
        device = select_device(config)
        native = select_native_kernels(config, device)
        if device.type == "cpu":
            # Beside the library's threads, those of torch would only take turns with them.
            torch.set_num_threads(1 if native is not None else config.threads or usable_cores())
        model = build_decoder(checkpoint, config, device, native)
        load_weights(model, checkpoint, progress)

        layout = model.kv_layout(config.block_size, config.kv_cache_dtype)
        num_blocks, max_model_len = size_cache(model.spec, config, layout, device)
        kv_cache = KvCache(layout, num_layers=model.spec.num_layers, num_blocks=num_blocks, device=device)
        sampler = Sampler(model.spec.vocab_size, device, native)
        self._runner = Runner(model, kv_cache, sampler, device=device)
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
            dtype=model.precision,
            device=str(device),
            kernels=model.kernels,
            block_size=config.block_size,
            num_blocks=num_blocks,
            load_seconds=time.monotonic() - began,
        )
        log.info(
            "Loaded in %.2f s: weights in %s, keys and values in %s, kernels: %s.",
            *(self.info.load_seconds, model.precision, layout.dtype, model.kernels),
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
