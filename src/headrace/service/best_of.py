"""The best of more candidates than are asked for. Which they are is only known when all have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.core.sampling import SamplingParams
from headrace.service.types import Delta


class BestOf:
    """Holds back what is said of `best_of` candidates, which come with their log-probabilities, and lets the `n` go
    whose tokens have the highest cumulative log-probability, best first; of equals the earlier candidate.
    """

    def __init__(self, sampling: SamplingParams) -> None:
        self._n = sampling.n
        self._with_logprobs = sampling.logprobs is not None
        self._held: list[list[Delta]] = [[] for _ in range(sampling.num_candidates)]
        self._unfinished = sampling.num_candidates

    def add(self, delta: Delta) -> list[Delta]:
        """What may be told now: nothing, or the answers, one delta a choice, when the last candidate has ended."""
        self._held[delta.choice].append(delta)
        if delta.finish_reason is None:
            return []
        self._unfinished -= 1
        if self._unfinished:
            return []
        best = sorted(self._held, key=_cumulative_logprob, reverse=True)[: self._n]
        return [self._whole(choice, deltas) for choice, deltas in enumerate(best)]

    def _whole(self, choice: int, deltas: Sequence[Delta]) -> Delta:
        return replace(
            deltas[-1],
            choice=choice,
            text="".join(delta.text for delta in deltas),
            token_ids=[token for delta in deltas for token in delta.token_ids],
            logprobs=[position for delta in deltas for position in delta.logprobs] if self._with_logprobs else [],
            cumulative_logprob=_cumulative_logprob(deltas),
        )


def _cumulative_logprob(deltas: Sequence[Delta]) -> float:
    return sum(position.chosen.logprob for delta in deltas for position in delta.logprobs)
