"""The process that renders chat templates which came with requests: `python -m headrace.service.template_helper`.

It reads tasks from its standard input and writes what came of each to its standard output. Whatever a template does, it
does here: memory is bounded by this process itself, time by the one that reads its answers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from headrace.core.errors import BadRequest, ConfigError
from headrace.core.helper_process import answer, bound_cpu_time, bound_memory, tasks
from headrace.service.conversations import render_conversation
from headrace.service.types import Conversation
from headrace.text import ChatTemplate

_MEMORY_BYTES = 256 * 1024 * 1024
"""What a template may take, beyond what this process needs by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderTask:
    """A conversation, and the template to put it in. `cpu_seconds` ends the process of a task that nobody awaits."""

    template: str
    special_tokens: dict[str, str]
    conversation: Conversation
    model_name: str
    cpu_seconds: float

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> RenderTask:
        fields = json.loads(data)
        return cls(**{**fields, "conversation": Conversation(**fields["conversation"])})


@dataclass(frozen=True, slots=True)
class RenderOutcome:
    """The prompt, or why there is none, and the parameter to blame."""

    prompt: str | None
    refusal: str = ""
    parameter: str | None = None

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> RenderOutcome:
        return cls(**json.loads(data))


def main() -> None:
    asked = tasks()
    if next(asked, None) is None:
        return
    bound_memory(_MEMORY_BYTES)
    answer(b"")
    for message in asked:
        answer(_run(RenderTask.from_bytes(message)).to_bytes())


def _run(task: RenderTask) -> RenderOutcome:
    bound_cpu_time(task.cpu_seconds)
    try:
        template = ChatTemplate(task.template, task.special_tokens)
        return RenderOutcome(render_conversation(template, task.conversation, model_name=task.model_name))
    except ConfigError as error:  # of templates, for which here it is not the operator who has to act
        return RenderOutcome(None, error.message, "chat_template")
    except BadRequest as error:
        return RenderOutcome(None, error.message, error.parameter)
    except (MemoryError, RecursionError) as error:
        return RenderOutcome(None, f"The chat template asks for too much: {type(error).__name__}.", "chat_template")


if __name__ == "__main__":
    main()
