"""What completions and chat answers have in common: who they are, and the prompts they show."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from headrace.api.usage import PromptSource, UsagePolicy
from headrace.core.request import FinishReason
from headrace.service import PositionLogprobs


@dataclass(frozen=True, slots=True)
class PromptView:
    """One prompt as an answer shows it. `text` is for `echo`; `first_token` is the text of the first id alone."""

    source: PromptSource
    text: str = ""
    first_token: str = ""

    @property
    def ids(self) -> list[int]:
        return self.source.prompt_ids

    @property
    def logprobs(self) -> list[PositionLogprobs | None] | None:
        """One entry a prompt token, None for the first; None where none were asked for."""
        return self.source.prompt_logprobs


@dataclass(frozen=True, slots=True)
class Head:
    """The fields that every chunk of an answer repeats. `created` in Unix seconds; `name` is the id less its prefix."""

    id: str
    name: str
    created: int
    model: str
    fingerprint: str

    def terminal_fingerprint(self, reason: FinishReason | None, usage: UsagePolicy) -> str | UnsetType:
        """A choice's last chunk carries the fingerprint, unless a usage chunk will."""
        return UNSET if reason is None or usage.at_end else self.fingerprint
