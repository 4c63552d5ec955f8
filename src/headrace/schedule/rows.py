"""Between live sequences and the plain values that leave the scheduler: rows of a plan, outputs of a step."""

from __future__ import annotations

from headrace.core.request import FinishReason, SequenceOutput
from headrace.schedule.plan import PlanRow, RowResult, StepPlan, StepResult, TokenHistory
from headrace.schedule.sequence import Sequence


def plan_row(sequence: Sequence, count: int, block_size: int) -> PlanRow:
    """The row that computes a sequence's next `count` tokens; nothing in it changes when the sequence does."""
    request = sequence.request
    start = sequence.num_computed
    stop = start + count
    samples = stop == sequence.num_known
    history = None
    if samples and request.sampling.reads_output:
        history = TokenHistory(request.prompt_ids, sequence.output_ids.copy())
    return PlanRow(
        request_id=request.request_id,
        choice=sequence.choice,
        token_ids=sequence.tokens(start, stop),
        start=start,
        block_table=sequence.block_table[: -(-stop // block_size)],
        sampling=request.sampling,
        samples=samples,
        output_index=len(sequence.output_ids),
        history=history,
        prompt_logprobs_from=sequence.prompt_logprobs_from,
        next_prompt_id=request.prompt_ids[stop] if stop < len(request.prompt_ids) else None,
        grammar=sequence.grammar if samples else None,
    )


def check_result(plan: StepPlan, result: StepResult) -> None:
    """Raises `ValueError` unless there is a result for each row, and for each that samples an error or a token, with
    its log-probabilities if they were asked for.
    """
    if len(plan.rows) != len(result.rows):
        raise ValueError(f"{len(result.rows)} results for {len(plan.rows)} rows.")
    for row, row_result in zip(plan.rows, result.rows, strict=True):
        if row_result.error is not None:
            continue
        if row.samples == (row_result.token_id is None):
            wanted = "a token" if row.samples else "no token"
            raise ValueError(f"Row {row.request_id}/{row.choice} wants {wanted}, got {row_result.token_id}.")
        if row.samples and row.sampling.logprobs is not None and row_result.logprobs is None:
            raise ValueError(f"Row {row.request_id}/{row.choice} wants logprobs.")


def sequence_output(
    sequence: Sequence,
    result: RowResult,
    finish_reason: FinishReason | None,
    stop_reason: int | None,
) -> SequenceOutput:
    """What a row's result added to its sequence, with the facts that only the first output carries."""
    first = not sequence.announced
    return SequenceOutput(
        request_id=sequence.request.request_id,
        choice=sequence.choice,
        token_ids=[] if result.token_id is None else [result.token_id],
        logprobs=[] if result.logprobs is None else [result.logprobs],
        prompt_logprobs=result.prompt_logprobs,
        finish_reason=finish_reason,
        stop_reason=stop_reason,
        cached_tokens=sequence.num_cached if first else None,
        scheduled_time=sequence.scheduled_time if first else None,
        error=result.error,
        refused=result.refused,
    )
