"""The engine: one model, one scheduler, one step at a time. Owned by one thread."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import BadRequest
from headrace.core.request import EngineInfo, Request, SequenceOutput, StepOutput, StepStats
from headrace.core.vocabulary import Vocabulary
from headrace.engine.assemble import build_decoder, select_device, select_native_kernels, share_threads
from headrace.engine.grammar_reading import GrammarReading, endings
from headrace.engine.kv_cache import KvCache, size_cache
from headrace.engine.runner import Runner
from headrace.engine.sampler import Sampler
from headrace.hub import Checkpoint
from headrace.models import read_blueprint
from headrace.schedule import Scheduler
from headrace.weights import Progress, load_weights

log = logging.getLogger(__name__)

_PATIENCE = 0.005
"""Seconds that a step waits for a grammar to be read where there is nothing else to do."""


class Engine:
    """Loads the checkpoint at construction. Raises `BadCheckpoint` or `ConfigError` if that is impossible.

    `memory_share`: the part of the KV cache's default size that this engine may take beside others.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: EngineConfig,
        progress: Progress | None = None,
        *,
        memory_share: float = 1.0,
    ) -> None:
        began = time.monotonic()
        device = select_device(config)
        native = select_native_kernels(config, device)
        share_threads(config, device, native)
        model = build_decoder(read_blueprint(checkpoint.config), checkpoint, config, device, native)
        load_weights(model, checkpoint, progress)

        layout = model.kv_layout(config.block_size, config.kv_cache_dtype)
        num_blocks, max_model_len = size_cache(model.spec, config, layout, device, memory_share)
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
        self._grammars = GrammarReading(model.spec.vocab_size)
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
        return self._scheduler.has_work or bool(self._grammars)

    @property
    def stats(self) -> StepStats:
        """The state between steps: nothing computed, nothing generated."""
        return self._scheduler.stats

    def add(self, request: Request) -> None:
        """Queue a request. Raises `BadRequest` if it can never run."""
        if request.sampling.grammar is None:
            self._scheduler.add(request)
        else:
            self._grammars.add(request)

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        """End one choice, or all; unknown ids are ignored, since the request may just have finished."""
        if request_id in self._grammars:
            return self._grammars.abort(request_id, choice)
        return self._scheduler.abort(request_id, choice)

    def learn(self, vocabulary: Vocabulary) -> None:
        """What grammars are held against; comes before the first request that has one."""
        self._grammars.learn(vocabulary)

    def step(self) -> StepOutput | None:
        """Run one step. None if nothing can run. A failure of the forward pass ends the sequences it was for."""
        refused = self._take_read() if self._grammars else []
        output = self._run_step()
        if not refused:
            return output
        if output is None:
            return StepOutput(refused, self.stats)
        return replace(output, sequences=refused + output.sequences)

    def _take_read(self) -> list[SequenceOutput]:
        """Queue the requests whose grammars have been read. Returns what is to be told of those that cannot run."""
        ready, refused = self._grammars.take(0 if self._scheduler.has_work else _PATIENCE)
        for one in ready:
            try:
                self._scheduler.add(one.request, one.state)
            except BadRequest as error:
                refused += endings(one.request, error.message, but=one.aborted, refused=True)
                continue
            for choice in one.aborted:
                self._scheduler.abort(one.request.request_id, choice)
        return refused

    def _run_step(self) -> StepOutput | None:
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
