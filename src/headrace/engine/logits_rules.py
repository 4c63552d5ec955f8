"""What a request may do to its logits before a token is chosen: bans, biases and penalties.

The order and the formulae are the contract's (section 3.2, steps 2 to 8). Each rule gathers the entries it changes from
the rows that ask for it, and changes them in one indexed write; no rule builds anything of the vocabulary's size.
An id outside the vocabulary can never be chosen, so what a rule says about it is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.schedule.plan import PlanRow, TokenHistory

_FLOAT32 = np.finfo(np.float32)


def has_rules(row: PlanRow) -> bool:
    """Whether a rule changes this row's logits in this step."""
    sampling = row.sampling
    return (
        sampling.allowed_token_ids is not None
        or bool(sampling.logit_bias)
        or sampling.reads_output
        or _holds_back_stop(row)
    )


def apply_rules(logits: Tensor, rows: Sequence[PlanRow]) -> None:
    """Apply each row's rules in place. `logits` is [len(rows), vocab] float32, contiguous."""
    _keep_allowed(logits, rows)
    _ban_bad_words_and_early_stops(logits, rows)
    _add_bias(logits, rows)
    _penalise_repetition(logits, rows)
    _penalise_occurrence(logits, rows)


def _keep_allowed(logits: Tensor, rows: Sequence[PlanRow]) -> None:
    """z[i] = -inf outside `allowed_token_ids`."""
    allowed = [(at, ids) for at, row in enumerate(rows) if (ids := row.sampling.allowed_token_ids) is not None]
    if not allowed:
        return
    flat = logits.view(-1)
    entries = _on_device(_entries(allowed, logits.shape[-1]), logits)
    kept = flat[entries]
    logits[[at for at, _ in allowed]] = -torch.inf
    flat[entries] = kept


def _ban_bad_words_and_early_stops(logits: Tensor, rows: Sequence[PlanRow]) -> None:
    """z[i] = -inf for the last id of a bad phrase about to be completed, and for ends before `min_tokens`."""
    banned = []
    for at, row in enumerate(rows):
        if row.sampling.bad_words_ids:
            banned.append((at, _completions(row.sampling.bad_words_ids, _history(row).output_ids)))
        if _holds_back_stop(row):
            banned.append((at, _stop_ids(row)))
    entries = _entries(banned, logits.shape[-1])
    if len(entries):
        logits.view(-1)[_on_device(entries, logits)] = -torch.inf


def _completions(phrases: Iterable[tuple[int, ...]], output_ids: list[int]) -> list[int]:
    """The last ids of those phrases whose earlier ids, all of them, the output ends with."""
    return [
        phrase[-1]
        for phrase in phrases
        if len(phrase) == 1 or (phrase and tuple(output_ids[1 - len(phrase) :]) == phrase[:-1])
    ]


def _holds_back_stop(row: PlanRow) -> bool:
    return row.output_index < row.sampling.min_tokens


def _stop_ids(row: PlanRow) -> list[int]:
    eos = row.sampling.eos_token_id
    return [*row.sampling.stop_token_ids, *([] if eos is None else [eos])]


def _add_bias(logits: Tensor, rows: Sequence[PlanRow]) -> None:
    """z[i] += b[i]"""
    vocab_size = logits.shape[-1]
    biases = {
        at * vocab_size + token: bias
        for at, row in enumerate(rows)
        for token, bias in row.sampling.logit_bias.items()
        if 0 <= token < vocab_size
    }
    if not biases:
        return
    entries = _on_device(np.fromiter(biases, np.int64, len(biases)), logits)
    amounts = _on_device(_float32(list(biases.values())), logits)
    flat = logits.view(-1)
    flat[entries] = flat[entries] + amounts


def _penalise_repetition(logits: Tensor, rows: Sequence[PlanRow]) -> None:
    """z[i] = z[i] / r if z[i] > 0 else z[i] * r, for the tokens of prompt and output."""
    seen = []
    for at, row in enumerate(rows):
        if row.sampling.repetition_penalty != 1.0:
            history = _history(row)
            seen += [(at, history.prompt_ids), (at, history.output_ids)]
    entries = _entries(seen, logits.shape[-1])
    if not len(entries):
        return
    # A token seen several times is read and written several times, each time with the same values: no harm done.
    by_row = np.maximum(_float32([row.sampling.repetition_penalty for row in rows]), _FLOAT32.tiny)
    penalty = _on_device(by_row[entries // logits.shape[-1]], logits)
    at_entries = _on_device(entries, logits)
    flat = logits.view(-1)
    values = flat[at_entries]
    flat[at_entries] = torch.where(values > 0, values / penalty, values * penalty)


def _penalise_occurrence(logits: Tensor, rows: Sequence[PlanRow]) -> None:
    """z[i] -= f * count(i), then z[i] -= p, for the tokens of the output."""
    outputs = [
        (at, _history(row).output_ids)
        for at, row in enumerate(rows)
        if row.sampling.frequency_penalty != 0 or row.sampling.presence_penalty != 0
    ]
    entries, counts = np.unique(_entries(outputs, logits.shape[-1]), return_counts=True)
    if not len(entries):
        return
    owners = entries // logits.shape[-1]
    frequency = _float32([row.sampling.frequency_penalty for row in rows])[owners] * counts.astype(np.float32)
    presence = _float32([row.sampling.presence_penalty for row in rows])[owners]
    at_entries = _on_device(entries, logits)
    flat = logits.view(-1)
    flat[at_entries] = flat[at_entries] - _on_device(frequency, logits) - _on_device(presence, logits)


def _history(row: PlanRow) -> TokenHistory:
    assert row.history is not None, f"row {row.request_id}/{row.choice} has rules that read tokens, but no history"
    return row.history


def _entries(pieces: Sequence[tuple[int, Sequence[int]]], vocab_size: int) -> NDArray[np.int64]:
    """Where the ids of each (row, ids) lie in the flattened logits. Ids outside the vocabulary are left out."""
    if not pieces:
        return np.empty(0, dtype=np.int64)
    ids = np.concatenate([np.asarray(ids, dtype=np.int64) for _, ids in pieces])
    owners = np.repeat([at for at, _ in pieces], [len(ids) for _, ids in pieces])
    known = (ids >= 0) & (ids < vocab_size)
    return (owners * vocab_size + ids)[known]


def _float32(values: Sequence[float]) -> NDArray[np.float32]:
    """As float32; what exceeds its range becomes its largest finite value, so that no rule makes a NaN."""
    return np.clip(np.asarray(values, dtype=np.float64), _FLOAT32.min, _FLOAT32.max).astype(np.float32)


def _on_device(array: NDArray, logits: Tensor) -> Tensor:
    return torch.from_numpy(array).to(logits.device)
