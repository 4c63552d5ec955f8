"""When a request is sent again, and how long that is waited for."""

from __future__ import annotations

import random
from dataclasses import dataclass

from headrace.client.errors import ClientError, ConnectFailed, RateLimitError, ServerError, TimedOut, TransportError

_NOT_IMPLEMENTED = 501


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Sends a request up to `max_retries` times more. Delays are in seconds.

    The k-th delay is `first_delay` * 2^(k-1), `longest_delay` at most, shortened at random by up to a half; at least
    what the server asks for with Retry-After. An answer that asks for more than `longest_wait` is not waited for.

    | What happened | Sent again |
    |---|---|
    | no connection, 429 | always: nothing was done |
    | the connection broke, 5xx (but 501) | if doing it twice does no harm |
    | time-out, another 4xx, a malformed answer | never |

    A stream is never asked for again once its first byte was here.
    """

    max_retries: int = 3
    first_delay: float = 0.5
    longest_delay: float = 8.0
    longest_wait: float = 60.0

    def __post_init__(self) -> None:
        if min(self.max_retries, self.first_delay, self.longest_delay, self.longest_wait) < 0:
            raise ValueError(f"Nothing in a retry policy may be negative, got {self}.")


class Attempts:
    """Counts the attempts at one request."""

    def __init__(self, policy: RetryPolicy, *, repeatable: bool) -> None:
        self._policy = policy
        self._repeatable = repeatable
        self._failed = 0

    def delay_after(self, error: ClientError) -> float:
        """Seconds to wait before the next attempt. Raises `error` if there is to be none."""
        policy = self._policy
        asked = error.retry_after if isinstance(error, RateLimitError | ServerError) else None
        hopeless = self._failed >= policy.max_retries or not self._may_repeat(error)
        if hopeless or (asked is not None and asked > policy.longest_wait):
            raise error
        delay = min(policy.longest_delay, policy.first_delay * 2.0**self._failed) * random.uniform(0.5, 1.0)
        self._failed += 1
        return max(delay, asked or 0.0)

    def _may_repeat(self, error: ClientError) -> bool:
        if isinstance(error, ConnectFailed | RateLimitError):
            return True
        if isinstance(error, ServerError):
            return self._repeatable and error.status != _NOT_IMPLEMENTED
        return self._repeatable and isinstance(error, TransportError) and not isinstance(error, TimedOut)
