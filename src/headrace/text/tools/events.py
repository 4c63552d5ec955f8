"""What a tool parser finds in an answer, in the order in which it stands there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentText:
    """Text for the reader of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of the function `name`. `call_id` is there where the model itself gives the call a name."""

    name: str
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the arguments of the call begun last. All pieces joined are the text of a JSON object."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBroken:
    """The call begun last is none: it ended early, or is not what its format says.

    `text` is all of it as the model wrote it, for an answer that is still to be shown; `unseen` is the part of it that
    no other event has told, for one that has been shown already.
    """

    text: str
    unseen: str


ToolEvent = ContentText | CallBegun | CallArguments | CallBroken
