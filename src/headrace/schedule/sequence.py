"""A sequence: one running answer to a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from headrace.core.request import Request

if TYPE_CHECKING:
    from headrace.grammar.state import GrammarState

Rank = tuple[int, float, int, int]
"""Place in the one order of all sequences, lower first: priority class, arrival time, serial number, choice."""


class Status(Enum):
    """PARKED: a beam that rests and has lost its place; it asks for another when there is something to compute."""

    WAITING = auto()
    RUNNING = auto()
    PARKED = auto()
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """The state of one choice of a request, or of one beam of a search. `block_table` and `block_hashes` are written by
    `BlockTables`, `status` by `Roster`, everything else by these and the `Scheduler`; nobody else writes.

    `num_computed`: how many of its first tokens have keys and values in the blocks of `block_table`.
    `block_hashes[i]` names the i-th full block of known tokens; hashed on demand, and never wrong once there because
    known tokens never change.
    `unforked`: the choices that start from this sequence's prompt once it is computed. A sequence that still has some
    is its request's leader.
    `num_cached`: prompt tokens found in the prefix cache when it first ran; None before that. 0 for a choice that was
    forked, whatever it finds: the leader speaks for the request.
    `prompt_logprobs_from`: the first prompt position whose logprobs are still owed; None if none are.
    `scheduled_time`: clock seconds at which it first ran. `announced`: its first output has been sent.
    `grammar`: where its output stands in the grammar that it has to follow; None if it is free.
    """

    request: Request
    choice: int
    rank: Rank
    unforked: list[int] = field(default_factory=list)
    status: Status = Status.WAITING
    output_ids: list[int] = field(default_factory=list)
    num_computed: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    num_cached: int | None = None
    prompt_logprobs_from: int | None = None
    scheduled_time: float | None = None
    announced: bool = False
    grammar: GrammarState | None = None

    @property
    def prompt_ids(self) -> list[int]:
        return self.request.prompt_ids

    @property
    def prompt_len(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def num_known(self) -> int:
        return len(self.request.prompt_ids) + len(self.output_ids)

    @property
    def num_uncomputed(self) -> int:
        """What the next steps have to catch up with. 0 only for a beam that rests, at least 1 for all that wait."""
        return len(self.request.prompt_ids) + len(self.output_ids) - self.num_computed

    @property
    def rests(self) -> bool:
        """Whether it is a beam whose continuations are known, so that it has to wait for the others of its search."""
        return self.status is Status.PARKED or self.num_uncomputed == 0

    def tokens(self, start: int, stop: int) -> list[int]:
        """A copy of the known tokens at positions `start` … `stop - 1`."""
        prompt_len = len(self.request.prompt_ids)
        if start >= prompt_len:
            return self.output_ids[start - prompt_len : stop - prompt_len]
        tokens = self.request.prompt_ids[start:stop]
        if stop > prompt_len:
            tokens += self.output_ids[: stop - prompt_len]
        return tokens

    def fork(self, choice: int) -> Sequence:
        """A sequence for another choice or beam that has this one's tokens, owns no block and has computed nothing."""
        return Sequence(
            request=self.request,
            choice=choice,
            rank=(*self.rank[:-1], choice),
            output_ids=self.output_ids.copy(),
            block_hashes=self.block_hashes.copy(),
            grammar=None if self.grammar is None else self.grammar.fork(),
        )
