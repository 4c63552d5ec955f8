"""The process that renders chat templates which came with requests: `python -m headrace.service.template_helper`.

It reads tasks from its standard input and writes what came of each to its standard output. Whatever a template does, it
does here: memory is bounded by this process itself, time by the one that reads its answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.core.errors import BadRequest, ConfigError
from headrace.runtime.frames import Frames, frame
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


READY = b"ready"
"""The first message of a process: it can take a task."""


def main() -> None:
    _bound_resources()
    outcomes = sys.stdout.buffer
    _write(outcomes, READY)
    frames = Frames()
    while data := os.read(sys.stdin.fileno(), 1 << 16):
        for message in frames.feed(data):
            _write(outcomes, _run(RenderTask.from_bytes(message)).to_bytes())


def _run(task: RenderTask) -> RenderOutcome:
    _allow_cpu_time(task.cpu_seconds)
    try:
        template = ChatTemplate(task.template, task.special_tokens)
        return RenderOutcome(render_conversation(template, task.conversation, model_name=task.model_name))
    except ConfigError as error:  # of templates, for which here it is not the operator who has to act
        return RenderOutcome(None, error.message, "chat_template")
    except BadRequest as error:
        return RenderOutcome(None, error.message, error.parameter)
    except (MemoryError, RecursionError) as error:
        return RenderOutcome(None, f"The chat template asks for too much: {type(error).__name__}.", "chat_template")


def _bound_resources() -> None:
    """No files to write, no core dumps, and no more memory than a template may take."""
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):  # systems without /proc do not bound the address space either
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + _MEMORY_BYTES)


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, most))


def _allow_cpu_time(seconds: float) -> None:
    """From now on. A process that uses more is killed by the system, should its parent be gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 2, hard))


def _write(stream: BinaryIO, message: bytes) -> None:
    stream.write(frame(message))
    stream.flush()


if __name__ == "__main__":
    main()
