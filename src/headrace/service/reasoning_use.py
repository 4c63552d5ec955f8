"""Whether an answer begins with thoughts, and which of its tokens are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.text import Tokenizer
from headrace.text.reasoning import ReasoningFormat, ReasoningParser, thinking_at_end


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningUse:
    """Thoughts are looked for in an answer. `opened`: it begins within them."""

    form: ReasoningFormat
    opened: bool

    @property
    def ends_with(self) -> str | None:
        """The text behind which the answer proper begins; None if it may begin at once, without thoughts."""
        return self.form.ends[0] if self.opened else None

    def parser(self, interrupts: Sequence[str]) -> ReasoningParser:
        """For one answer. `interrupts` end the thoughts as well, and belong to the answer proper."""
        return ReasoningParser(self.form, opened=self.opened, interrupts=interrupts)


def reasoning_use(
    form: ReasoningFormat | None, variables: Mapping[str, Any], prompt: str, *, continued: str
) -> ReasoningUse | None:
    """None if there are no thoughts to be expected.

    `variables` are those of the chat template, which can turn thinking off. `continued` is the text at the end of
    `prompt` that the answer goes on with.
    """
    if form is None or not form.is_on(variables):
        return None
    thinking = thinking_at_end(form, prompt, continued=continued)
    if thinking is False:
        return None
    return ReasoningUse(form=form, opened=form.opened if thinking is None else thinking)


class ThoughtTokens:
    """Tells token by token which ids of one answer are thoughts, markers included.

    Text cannot tell: a delta may hold several tokens, and some of its text may be held back.
    """

    def __init__(self, parser: ReasoningParser, prompt_ids: Sequence[int], tokenizer: Tokenizer) -> None:
        self._parser = parser
        self._decoder = tokenizer.decoder(prompt_ids, skip_special_tokens=False)

    def tell(self, token_ids: Sequence[int]) -> list[bool]:
        """One answer an id, for the ids that follow those of the last time."""
        told = []
        for token_id in token_ids:
            thinking = self._parser.thinking
            split = self._parser.push(self._decoder.push([token_id]))
            told.append(thinking or self._parser.thinking or bool(split.reasoning))
        return told
