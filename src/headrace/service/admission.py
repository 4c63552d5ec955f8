"""Who may wait: a bound on what has been submitted and has not produced anything yet."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.config.sections import LimitsConfig
from headrace.core.errors import Overloaded
from headrace.service.observer import RequestObserver


class Ticket:
    """The place of one request in the queue. Each choice leaves it with its first output, the prompt with the first."""

    def __init__(self, admission: Admission, choices: int, tokens: int) -> None:
        self._admission = admission
        self._waiting = set(range(choices))
        self._tokens = tokens

    def started(self, choice: int) -> None:
        """An output of this choice came. Any number of calls."""
        if choice in self._waiting:
            self._waiting.discard(choice)
            self._leave(1)

    def close(self) -> None:
        """Nothing of this request waits any more. Any number of calls."""
        waiting = len(self._waiting)
        self._waiting.clear()
        self._leave(waiting)

    def _leave(self, choices: int) -> None:
        tokens, self._tokens = self._tokens, 0
        self._admission.leave(choices, tokens)


class Admission:
    """Counts queued choices and prompt tokens, and turns requests away that would exceed the limits."""

    def __init__(self, limits: LimitsConfig, observer: RequestObserver | None) -> None:
        self._limits = limits
        self._observer = observer
        self.queued_choices = 0
        self.queued_tokens = 0

    def admit(self, requests: Sequence[tuple[int, int]]) -> list[Ticket]:
        """Places for all of `requests`, each (choices, prompt tokens), or `Overloaded` and none."""
        choices = sum(request[0] for request in requests)
        tokens = sum(request[1] for request in requests)
        self._check("max_num_queued_reqs", self.queued_choices + choices, self._limits.max_num_queued_reqs)
        self._check("max_num_queued_tokens", self.queued_tokens + tokens, self._limits.max_num_queued_tokens)
        self.queued_choices += choices
        self.queued_tokens += tokens
        return [Ticket(self, *request) for request in requests]

    def leave(self, choices: int, tokens: int) -> None:
        self.queued_choices -= choices
        self.queued_tokens -= tokens

    def _check(self, limit_name: str, wanted: int, limit: int | None) -> None:
        if limit is None or wanted <= limit:
            return
        if self._observer is not None:
            self._observer.request_rejected(limit_name)
        raise Overloaded(f"The queue is full ({limit_name}={limit}). Please try again later.")
