"""An answer taken apart: thoughts, text and calls of functions, while it is written or once it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.service.reasoning_use import ReasoningUse, ThoughtTokens
from headrace.service.tool_use import NO_CALLS, StrictLevel, ToolUse
from headrace.text import Tokenizer
from headrace.text.reasoning import ReasoningFormat
from headrace.text.tools import CallArguments, CallBegun, CallBroken, ContentText, ToolEvent, ToolFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormats:
    """How a model marks the parts of its answers, as the server's flags say; None: they are not looked for.

    `constrained_reasoning`: what constrains an answer constrains its thoughts as well.
    """

    tools: ToolFormat | None = None
    strict_level: StrictLevel = "auto"
    reasoning: ReasoningFormat | None = None
    constrained_reasoning: bool = False


NO_FORMATS = AnswerFormats()


@dataclass(slots=True)
class CallPart:
    """What is added to the call `index`: its id and name, which come once and first, and a piece of its arguments."""

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(slots=True)
class AnswerParts:
    """What is added to an answer, or all of it. `thoughts`: which of its ids are thoughts; [] if none can be."""

    reasoning: str = ""
    content: str = ""
    calls: list[CallPart] = field(default_factory=list)
    thoughts: list[bool] = field(default_factory=list)


class AnswerReader:
    """Reads one choice. The parts are those of the whole answer, however it is cut into deltas."""

    def __init__(
        self, tools: ToolUse, reasoning: ReasoningUse | None, *, prompt_ids: Sequence[int], tokenizer: Tokenizer | None
    ) -> None:
        self.calls = 0
        self._tools = tools
        self._calls = None if tools.parser is None else tools.parser()
        self._thinking = None if reasoning is None else reasoning.parser(tools.openings)
        self._thoughts = None
        if reasoning is not None and tokenizer is not None:
            self._thoughts = ThoughtTokens(reasoning.parser(tools.openings), prompt_ids, tokenizer)

    def push(self, text: str, token_ids: Sequence[int], *, last: bool) -> AnswerParts:
        """What a delta adds. `last`: no more will come."""
        parts = self._parts(token_ids)
        for event in self._events(parts, text, last=last):
            match event:
                case CallBroken(_, unseen):
                    if not self._tools.demanded and self._counts(self.calls - 1):
                        parts.content += unseen
                case _:
                    self._add(parts, event)
        return parts

    def whole(self, text: str, token_ids: Sequence[int]) -> AnswerParts:
        """All parts of an answer that is read in one go. What turns out to be no call is content as it was written,
        unless calls were demanded: then it is a call that was cut short.
        """
        parts = self._parts(token_ids)
        for event in self._events(parts, text, last=True):
            match event:
                case CallBroken(written, _):
                    if not self._tools.demanded and self._counts(self.calls - 1):
                        self._take_back(parts)
                        parts.content += written
                case _:
                    self._add(parts, event)
        return parts

    def _parts(self, token_ids: Sequence[int]) -> AnswerParts:
        return AnswerParts(thoughts=[] if self._thoughts is None else self._thoughts.tell(token_ids))

    def _events(self, parts: AnswerParts, text: str, *, last: bool) -> list[ToolEvent]:
        """What `text` tells apart from thoughts, which are added to `parts`."""
        if self._thinking is not None:
            splits = [self._thinking.push(text)]
            if last:
                splits.append(self._thinking.finish())
            parts.reasoning = "".join(split.reasoning for split in splits)
            text = "".join(split.content for split in splits)
        if self._calls is None:
            return [ContentText(text)]
        events = self._calls.push(text)
        return events + self._calls.finish() if last else events

    def _add(self, parts: AnswerParts, event: ToolEvent) -> None:
        match event:
            case ContentText(text):
                if not self._tools.demanded:  # else it is the JSON around the calls, or a call cut short
                    parts.content += text
            case CallBegun(name, call_id):
                index = self.calls
                self.calls += 1
                if self._counts(index):
                    parts.calls.append(CallPart(index, call_id or self._tools.new_id(name, index), name))
            case CallArguments(text) if self._counts(index := self.calls - 1):
                if not parts.calls or parts.calls[-1].index != index:
                    parts.calls.append(CallPart(index))
                parts.calls[-1].arguments += text

    def _take_back(self, parts: AnswerParts) -> None:
        """The call begun last is none."""
        self.calls -= 1
        parts.calls = [call for call in parts.calls if call.index < self.calls]

    def _counts(self, index: int) -> bool:
        return self._tools.parallel or index == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """What the answers to one conversation are read for."""

    tools: ToolUse = NO_CALLS
    reasoning: ReasoningUse | None = None

    def reader(self, prompt_ids: Sequence[int], tokenizer: Tokenizer | None) -> AnswerReader:
        """For one choice."""
        return AnswerReader(self.tools, self.reasoning, prompt_ids=prompt_ids, tokenizer=tokenizer)
