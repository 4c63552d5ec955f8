"""When a sequence has said enough."""

from __future__ import annotations

from headrace.core.request import FinishReason
from headrace.schedule.sequence import Sequence


def ending(sequence: Sequence, max_model_len: int) -> tuple[FinishReason, int | None] | None:
    """Why the sequence ends with its newest output token, and the `stop_reason` to report; None if it goes on.

    Checked in this order: end-of-sequence token, stop tokens, length. `min_tokens` switches the first two off until
    the output has that many tokens. An output that its grammar has brought to its end is at an end whatever else.
    """
    sampling = sequence.request.sampling
    output_len = len(sequence.output_ids)
    token_id = sequence.output_ids[-1]
    complete = sequence.grammar is not None and sequence.grammar.ended
    if output_len >= sampling.min_tokens or complete:
        if token_id == sampling.eos_token_id and (complete or not sampling.ignore_eos):
            return FinishReason.STOP, None
        if token_id in sampling.stop_token_ids:
            return FinishReason.STOP, token_id
    if complete:
        return FinishReason.STOP, None
    if output_len >= sampling.max_tokens or sequence.num_known >= max_model_len:
        return FinishReason.LENGTH, None
    return None
