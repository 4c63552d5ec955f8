"""Where the thinking of a model begins and ends in its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningFormat:
    """How one family of models marks its thinking, which stands at the beginning of an answer.

    `begins` and `ends` are the markers, in their spellings. `opened`: the answer is thinking from its first character,
    whether it has a marker there or not; else only behind one.
    `switches` are variables of the chat template that turn thinking on and off; `on` is how it is without them.
    `special_tokens`: markers may be special tokens of the tokenizer, so that text must be decoded with those shown.
    """

    begins: tuple[str, ...]
    ends: tuple[str, ...]
    opened: bool
    switches: tuple[str, ...] = ()
    on: bool = True
    special_tokens: bool = False

    def is_on(self, variables: Mapping[str, Any]) -> bool:
        """Whether the model thinks when the template has these variables; the first switch among them decides."""
        given = (bool(variables[switch]) for switch in self.switches if variables.get(switch) is not None)
        return next(given, self.on)


def thinking_at_end(form: ReasoningFormat, prompt: str, *, continued: str = "") -> bool | None:
    """Whether an answer to `prompt` begins within the thoughts; None if the prompt says nothing of it.

    `continued` is the text at the end of `prompt` with which the answer is to have begun.
    """
    written = continued.rstrip()
    begun = max(written.rfind(marker) for marker in form.begins)
    ended = max(written.rfind(marker) for marker in form.ends)
    if begun >= 0 or ended >= 0:
        return begun > ended
    if written:
        return False  # it goes on with an answer that began without a thought
    tail = prompt.rstrip()
    if tail.endswith(form.begins):
        return True
    return False if tail.endswith(form.ends) else None
