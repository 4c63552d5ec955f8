"""Runs a plan: tensors inside, token ids out, no sequence touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from headrace.core.errors import EngineError
from headrace.core.request import TokenLogprobs
from headrace.engine.batch import Batch, build_batch
from headrace.engine.grammar_masks import GrammarMasks
from headrace.engine.kv_cache import KvCache
from headrace.engine.sampler import Sampler
from headrace.models.decoder import Decoder
from headrace.schedule.plan import PlanRow, RowResult, StepPlan, StepResult

if TYPE_CHECKING:
    from headrace.grammar.masks import TokenMasks

PROMPT_LOGITS = 1 << 24
"""Most logits held at once for prompt logprobs (64 MB of float32)."""


class Runner:
    """The model with its KV memory and its sampler."""

    def __init__(self, model: Decoder[Any], kv_cache: KvCache, sampler: Sampler, *, device: torch.device) -> None:
        self._model = model
        self._kv_cache = kv_cache
        self._kv_view = model.kv_view(kv_cache.memory, kv_cache.layout)
        self._sampler = sampler
        self._masks = GrammarMasks(model.spec.vocab_size)
        self._device = device

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        filling = self._masks.start(plan.rows)
        masks = None
        try:
            self._kv_cache.copy_blocks(plan.block_copies)
            batch = build_batch(plan, self._kv_cache.layout.block_size, self._device)
            outputs = list(accumulate(map(_outputs_of, batch.rows), initial=0))
            hidden = self._model.forward(batch.token_ids, batch.attention, self._kv_view, outputs)
        finally:
            if filling is not None:
                masks = filling.result()  # whatever came of the step, nobody reads the grammars any more
        sampling = [index for index, row in enumerate(batch.rows) if row.samples]
        if masks is not None:
            masks = masks.placed({batch.plan_index[index]: place for place, index in enumerate(sampling)})
        results = self._sample(batch, hidden, outputs, sampling, masks)
        for index, row in enumerate(batch.rows):
            if (owed_from := row.prompt_logprobs_from) is not None:
                chunk = hidden[outputs[index] : outputs[index + 1]]
                try:
                    entries = self._prompt_logprobs(row, owed_from, chunk)
                    results[index] = replace(results[index], prompt_logprobs=entries)
                except EngineError as error:
                    results[index] = RowResult(error=error.message)
        self.scrub([row for row, result in zip(batch.rows, results, strict=True) if result.error is not None])
        in_plan_order = [RowResult()] * len(results)
        for index, result in zip(batch.plan_index, results, strict=True):
            in_plan_order[index] = result
        return StepResult(in_plan_order, 0.0 if masks is None else masks.seconds)

    @torch.inference_mode()
    def scrub(self, rows: Iterable[PlanRow]) -> None:
        """Leave nothing in the blocks of rows that failed which could make others fail."""
        self._kv_cache.scrub({block for row in rows for block in row.block_table})

    def _sample(
        self,
        batch: Batch,
        hidden: torch.Tensor,
        outputs: Sequence[int],
        sampling: Sequence[int],
        masks: TokenMasks | None,
    ) -> list[RowResult]:
        """A result for each row of the batch. `outputs[b]` is where the hidden states of row b begin, `sampling` are
        the indices of the rows that get a token.
        """
        results = [RowResult()] * len(batch.rows)
        if not sampling:
            return results
        if len(sampling) < len(hidden):
            last_tokens = [outputs[index + 1] - 1 for index in sampling]
            hidden = hidden[torch.tensor(last_tokens, device=self._device)]
        rows = [batch.rows[index] for index in sampling]
        sampled = self._sampler.sample(self._model.logits(hidden), rows, masks)
        for index, result in zip(sampling, sampled, strict=True):
            results[index] = result
        return results

    def _prompt_logprobs(self, row: PlanRow, owed_from: int, hidden: torch.Tensor) -> list[TokenLogprobs]:
        """Entries for the prompt positions that this row owes; position p is predicted by the token before it.

        Raises `EngineError` if the logits of one are not finite.
        """
        following = row.token_ids[1:]
        if row.next_prompt_id is not None:
            following = [*following, row.next_prompt_id]
        skipped = max(owed_from - row.start - 1, 0)
        count = row.sampling.prompt_logprobs or 0
        entries: list[TokenLogprobs] = []
        most = max(PROMPT_LOGITS // self._model.spec.vocab_size, 1)
        for first in range(skipped, len(following), most):
            targets = following[first : first + most]
            logits = self._model.logits(hidden[first : first + len(targets)])
            entries += self._sampler.prompt_logprobs(logits, targets, count)
        return entries


def _outputs_of(row: PlanRow) -> int:
    """Of how many of its tokens, the last ones, the hidden states are needed."""
    return len(row.token_ids) if row.prompt_logprobs_from is not None else int(row.samples)
