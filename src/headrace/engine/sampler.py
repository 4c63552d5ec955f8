"""From logits to tokens: rules, truncation, one draw per row, and the log-probabilities asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headrace.core.errors import EngineError
from headrace.core.request import TokenLogprobs
from headrace.core.sampling import LOWEST_TEMPERATURE, TokenSampling
from headrace.engine.grammar_masks import ban_others
from headrace.engine.inverse_cdf import draw
from headrace.engine.logits_rules import apply_rules, has_rules
from headrace.engine.logprobs import listed_logprobs, token_logprobs
from headrace.engine.randomness import uniforms
from headrace.engine.truncation import truncate, truncates
from headrace.kernels.native import NativeKernels
from headrace.schedule.plan import PlanRow, RowResult

if TYPE_CHECKING:
    from headrace.grammar.masks import TokenMasks

_Way = Callable[[Tensor, Sequence[PlanRow]], tuple[Tensor, Tensor]]
"""Chooses tokens for rows of logits: int64 [R], and the highest logits, float32 [R]."""


class Sampler:
    """Chooses the next token of each row, as section 3.2 of the contract has it. Keeps no state between calls.

    What a row gets depends on that row alone: its logits, its parameters, and for the draw its seed, choice and output
    index. Work is done only for the rows and the rules that need it.
    """

    def __init__(self, vocab_size: int, device: torch.device, native: NativeKernels | None = None) -> None:
        """`native`: kernels that draw faster than torch, where the device is a CPU that has them."""
        self.vocab_size = vocab_size
        self.device = device
        self._native = native

    def sample(self, logits: Tensor, rows: Sequence[PlanRow], masks: TokenMasks | None = None) -> list[RowResult]:
        """One result per row. `logits` [len(rows), vocab_size] float32 on the sampler's device; may be overwritten.

        All `rows` are to sample. `masks` have what grammars allow; a row whose grammar allows nothing but an end gets
        that, whatever the rules say.
        A row that cannot (its logits are not finite, or everything is banned) gets a result with an `error` that names
        the cause; the others are as without it.
        """
        self._check(logits, len(rows))
        if not rows:
            return []
        logits = logits.contiguous()
        reporting = [at for at, row in enumerate(rows) if row.sampling.logprobs is not None]
        ruled = any(has_rules(row) for row in rows)
        overwrites = ruled or not all(row.sampling.greedy for row in rows)
        if masks is not None:
            ban_others(logits, masks)
        raw = logits.clone() if reporting and overwrites else logits
        if ruled:
            _apply_rules(logits, rows, [] if masks is None else masks.complete)
        chosen, peaks = self._choose(logits, rows)

        reports = _reports(raw, chosen, rows, reporting)
        # float64 holds every id and every float32 exactly: one transfer for both.
        token_ids, best = torch.stack((chosen.double(), peaks.double())).tolist()
        results = []
        for at, row in enumerate(rows):
            if masks is not None and at in masks.errors:
                problem = f"The answer's grammar cannot be followed: {masks.errors[at]}"
                results.append(RowResult(error=problem, refused=True))
            elif not math.isfinite(best[at]):
                results.append(_failure(best[at], row))
            elif at in reports and reports[at] is None:
                results.append(RowResult(error="The model's logits hold NaN or infinity: they have no logprobs."))
            else:
                results.append(RowResult(token_id=int(token_ids[at]), logprobs=reports.get(at)))
        return results

    def prompt_logprobs(self, logits: Tensor, next_ids: list[int], count: int) -> list[TokenLogprobs]:
        """Logprobs of the tokens that follow P prompt positions: `next_ids[p]` was predicted by row p of `logits`.

        `logits` [P, vocab_size] float32 are left as they are; `count` best tokens are listed (-1: all). Takes about as
        much memory again as the logits, so long prompts should come in parts. Raises `EngineError` if a position's
        logits have no distribution (NaN, +inf, or nothing but -inf).
        """
        self._check(logits, len(next_ids))
        if not next_ids:
            return []
        found = token_logprobs(logits, torch.tensor(next_ids, device=self.device), [count] * len(next_ids))
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            raise EngineError("The model's logits hold NaN or infinity at a prompt position: it has no logprobs.")
        return known

    def _check(self, logits: Tensor, num_rows: int) -> None:
        if logits.shape != (num_rows, self.vocab_size) or logits.dtype != torch.float32:
            raise ValueError(
                f"logits must be float32 [{num_rows}, {self.vocab_size}], got {logits.dtype} {list(logits.shape)}."
            )

    def _choose(self, logits: Tensor, rows: Sequence[PlanRow]) -> tuple[Tensor, Tensor]:
        """The chosen tokens, int64 [R], and the highest logits, float32 [R]. May overwrite the logits of rows that are
        not greedy.
        """
        groups: dict[_Way, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(self._way(row.sampling), []).append(at)
        if len(groups) == 1:
            return next(iter(groups))(logits, rows)
        chosen = torch.empty(len(rows), dtype=torch.int64, device=self.device)
        peaks = torch.empty(len(rows), dtype=torch.float32, device=self.device)
        for way, members in groups.items():
            chosen[members], peaks[members] = way(logits[members], [rows[at] for at in members])
        return chosen, peaks

    def _way(self, sampling: TokenSampling) -> _Way:
        """How a row with these parameters is chosen: that must not depend on the other rows."""
        if sampling.greedy:
            return _highest
        if self._native is not None and not truncates(sampling, self.vocab_size):
            return self._draw_native
        return self._draw

    def _draw_native(self, logits: Tensor, rows: Sequence[PlanRow]) -> tuple[Tensor, Tensor]:
        assert self._native is not None
        temperatures = torch.tensor([max(row.sampling.temperature, LOWEST_TEMPERATURE) for row in rows])
        return self._native.draw(logits, temperatures, _quantiles(rows))

    def _draw(self, logits: Tensor, rows: Sequence[PlanRow]) -> tuple[Tensor, Tensor]:
        peaks = logits.amax(-1)
        weights = token_weights(logits, [row.sampling for row in rows])
        return draw(weights, _quantiles(rows).to(self.device)), peaks


def _apply_rules(logits: Tensor, rows: Sequence[PlanRow], spared: list[int]) -> None:
    """Apply each row's rules in place, but to the rows `spared`."""
    kept = logits[spared] if spared else None
    apply_rules(logits, rows)
    if kept is not None:
        logits[spared] = kept


def _reports(
    raw: Tensor, chosen: Tensor, rows: Sequence[PlanRow], reporting: list[int]
) -> dict[int, TokenLogprobs | None]:
    """The logprobs of the rows `reporting`, from their raw logits and the tokens chosen; None where there are none."""
    reports: dict[int, TokenLogprobs | None] = {}
    for at in reporting:
        if (listed := rows[at].sampling.logprob_token_ids) is not None:
            reports[at] = listed_logprobs(raw[at], int(chosen[at]), listed)
    ranking = [at for at in reporting if at not in reports]
    if ranking:
        counts = [rows[at].sampling.logprobs or 0 for at in ranking]
        found = token_logprobs(_take(raw, ranking), chosen[ranking], counts)
        reports.update(zip(ranking, found, strict=True))
    return reports


def token_weights(logits: Tensor, sampling: Sequence[TokenSampling]) -> Tensor:
    """What rows that are not greedy draw from: probabilities after temperature, those that min-p, top-k and top-p drop
    set to 0.

    `logits` [R, V] float32, rules applied, are overwritten: fresh memory of the vocabulary's size costs as much as the
    arithmetic. Returns [R, V] float32.
    """
    temperatures = [max(one.temperature, LOWEST_TEMPERATURE) for one in sampling]
    if any(temperature != 1 for temperature in temperatures):
        # Shifting first keeps z / T within float32, whatever the temperature.
        logits -= logits.amax(-1, keepdim=True)
        logits /= torch.tensor(temperatures, dtype=torch.float32, device=logits.device)[:, None]
    # Of torch's ways to exponentials, the one that computes each row alike whatever the other rows and the threads.
    weights = torch.softmax(logits, -1, out=logits)
    truncating = [at for at, one in enumerate(sampling) if truncates(one, logits.shape[-1])]
    if truncating:
        part = _take(weights, truncating)
        truncate(part, [sampling[at] for at in truncating])
        if part is not weights:
            weights[truncating] = part
    return weights


def _quantiles(rows: Sequence[PlanRow]) -> Tensor:
    """One uniform number in [0, 1) for each row's draw, float64."""
    return torch.from_numpy(
        uniforms([row.sampling.seed + row.choice for row in rows], [row.output_index for row in rows])
    )


def _highest(logits: Tensor, rows: Sequence[PlanRow]) -> tuple[Tensor, Tensor]:
    """The best token of each row, the lowest id on a tie, and its logit."""
    # On a CPU torch's takes thirteen times as long as numpy's.
    chosen = torch.from_numpy(logits.numpy().argmax(-1)) if logits.device.type == "cpu" else logits.argmax(-1)
    return chosen, logits.gather(-1, chosen[:, None])[:, 0]


def _take(logits: Tensor, rows: list[int]) -> Tensor:
    """These rows of the logits; not copied when they are all of them."""
    return logits if len(rows) == len(logits) else logits[rows]


def _failure(peak: float, row: PlanRow) -> RowResult:
    """Why no token can be chosen where the highest logit, after the rules, is not finite."""
    if math.isnan(peak):
        return RowResult(error="The model's logits hold NaN.")
    if peak > 0:
        return RowResult(error="The logits hold infinity.")
    if row.grammar is None and not has_rules(row):
        return RowResult(error="The model's logits are all -inf.")
    whole = "together ban all of them" if row.grammar is None else "ban all that the grammar allows"
    return RowResult(
        error=f"No token is left to choose: allowed_token_ids, bad_words and min_tokens {whole}.", refused=True
    )
