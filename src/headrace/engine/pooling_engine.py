"""An engine for a model that pools: it makes vectors and scores of whole inputs. Owned by one thread."""

from __future__ import annotations

import logging
import time

import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import BadRequest
from headrace.core.pooling import PoolingRequest
from headrace.core.request import EngineInfo, StepOutput, StepStats
from headrace.engine.assemble import select_device, select_native_kernels, share_threads
from headrace.engine.pooling_assemble import load_pooling_parts
from headrace.hub import Checkpoint, ModelRole
from headrace.schedule.pooling import PooledRow, PoolingPlan, PoolingScheduler
from headrace.weights import Progress

log = logging.getLogger(__name__)


class PoolingEngine:
    """Loads the checkpoint at construction. Raises `BadCheckpoint` or `ConfigError` if that is impossible.

    `memory_share`: the part of the default size that a decoder's memory for keys and values may take beside others.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        role: ModelRole,
        config: EngineConfig,
        progress: Progress | None = None,
        *,
        memory_share: float = 1.0,
    ) -> None:
        began = time.monotonic()
        device = select_device(config)
        native = select_native_kernels(config, device)
        share_threads(config, device, native)
        parts = load_pooling_parts(checkpoint, role, config, device, native, progress, memory_share)
        self._backbone = parts.backbone
        self._readout = parts.readout
        self._pooling = parts.info
        self._scheduler = PoolingScheduler(
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=parts.step_tokens,
            max_model_len=parts.max_model_len,
            block_size=parts.block_size,
            policy=config.scheduling_policy,
        )
        self.info = EngineInfo(
            architecture=checkpoint.config["architectures"][0],
            vocab_size=parts.vocab_size,
            max_model_len=parts.max_model_len,
            dtype=parts.precision,
            device=str(device),
            kernels=parts.kernels,
            block_size=config.block_size,
            num_blocks=0,
            load_seconds=time.monotonic() - began,
            pooling=parts.info,
        )
        log.info(
            "Loaded in %.2f s: weights in %s, kernels: %s, for: %s.",
            *(self.info.load_seconds, parts.precision, parts.kernels, ", ".join(parts.info.tasks)),
        )

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def stats(self) -> StepStats:
        """The state between steps: nothing computed."""
        return self._scheduler.stats

    def add(self, request: PoolingRequest) -> None:
        """Queue a request. Raises `BadRequest` if it can never run."""
        self._pooling.check(request.params)
        types = max(self._pooling.type_vocab_size, 1)
        if (highest := max(request.token_type_ids or [0])) >= types:
            raise BadRequest(
                f"token_type_ids must be below {types} for this model, got {highest}.",
                parameter="token_type_ids",
                value=highest,
            )
        self._scheduler.add(request)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """Forget a request, whose one choice is number 0; unknown ids are ignored, since it may just have finished."""
        if choice in (None, 0):
            self._scheduler.abort(request_id)

    def step(self) -> StepOutput | None:
        """Run one step. None if nothing can run. A failure of the forward pass ends the requests it was for."""
        plan = self._scheduler.plan()
        if plan is None:
            return None
        try:
            rows = self._run(plan)
        except torch.AcceleratorError:
            raise  # the device has failed, and every later step on it would too: only a new process can go on
        except Exception as error:
            log.exception("A step of %d inputs failed.", len(plan.requests))
            self._backbone.scrub()
            return self._scheduler.fail(plan, f"The engine failed while running this request: {error}")
        return self._scheduler.commit(plan, rows)

    def _run(self, plan: PoolingPlan) -> list[PooledRow]:
        order = sorted(range(len(plan.requests)), key=lambda index: len(plan.requests[index].prompt_ids) > 1)
        requests = [plan.requests[index] for index in order]
        pooled = self._readout.pool(self._backbone.run(requests), requests)
        if any(row.error is not None for row in pooled):
            self._backbone.scrub()
        rows = dict(zip(order, pooled, strict=True))
        return [rows[index] for index in range(len(order))]
