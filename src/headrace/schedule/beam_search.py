"""How a beam search goes on: which continuations of its beams live, which have finished, and when it is over.

Nothing here knows of sequences or blocks. All lists are best first; of equals, what comes from a better beam, or was
found earlier, is the better one, so that the same log-probabilities always give the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.request import BeamSearch, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Continuation:
    """Beam number `beam` and its candidate number `place` behind it, with the log-probability of all its output."""

    beam: int
    place: int
    token_id: int
    cumulative_logprob: float


def num_candidates(width: int) -> int:
    """How many of the best tokens after a beam are looked at. One of them may end it; enough others are left then."""
    return 2 * width


def continuations(
    search: BeamSearch,
    cumulative_logprobs: Sequence[float],
    candidates: Sequence[TokenLogprobs],
    eos_token_id: int | None,
) -> tuple[list[Continuation], list[Continuation]]:
    """The `width` best continuations that go on, and those that finish with `eos_token_id` (None: nothing finishes).

    `cumulative_logprobs` and `candidates` are those of the live beams; the candidates of a beam are the best tokens
    after it. Tokens without any probability continue nothing.
    """
    most = num_candidates(search.width)
    found = [
        Continuation(beam, place, token_id, so_far + logprob)
        for beam, (so_far, best) in enumerate(zip(cumulative_logprobs, candidates, strict=True))
        for place, (token_id, logprob) in enumerate(zip(best.top_ids[:most], best.top_logprobs[:most], strict=True))
        if logprob > -math.inf
    ]
    found.sort(key=lambda continuation: -continuation.cumulative_logprob)
    may_finish = found if search.early_stopping is None else found[: search.width]
    finishing = [continuation for continuation in may_finish if continuation.token_id == eos_token_id]
    going_on = [continuation for continuation in found if continuation.token_id != eos_token_id]
    return going_on[: search.width], finishing


def score(cumulative_logprob: float, length: int, length_penalty: float) -> float:
    """What beams are ranked by. `length` counts the tokens of prompt and output, less a final end-of-sequence token."""
    return cumulative_logprob / max(length, 1) ** length_penalty


def is_decided(search: BeamSearch, worst_finished: float, best_live: float, length: int, longest: int) -> bool:
    """Whether a search with `width` finished beams, the worst of which scores `worst_finished`, ends before its time.

    `best_live` is the cumulative log-probability of the best beam that goes on, `length` its tokens so far, prompt
    included, and `longest` as many as it can ever have.
    """
    if search.early_stopping is True:
        return True
    # Log-probabilities only add up to less. A positive penalty makes the best of that with length, others at once.
    most_favourable = longest if search.early_stopping is not False and search.length_penalty > 0 else length
    return worst_finished >= score(best_live, most_favourable, search.length_penalty)
