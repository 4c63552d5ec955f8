"""`headrace chat`: a conversation with a running server, on a terminal or from a pipe."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headrace.cli.candidates import draw_side_by_side, print_one_by_one
from headrace.cli.remote import EXIT_BROKEN_PIPE, Remote, RemoteFailed, drop_output, explained, shown
from headrace.client import Client
from headrace.core.errors import ConfigError

PROMPT = "> "
CONTINUED = "... "
BLOCK = '"""'

HELP = f"""\
/system TEXT   how the model is to behave; without TEXT, no longer
/save FILE     write the conversation as JSON
/clear         forget it, but for the system message
/quit          end; so does Ctrl-D
A line that ends in \\ goes on in the next one; lines between {BLOCK} and {BLOCK} are one message.
Ctrl-C stops an answer. //… sends a message that begins with a slash."""


class Conversation:
    """What was said so far."""

    def __init__(self, system: str | None) -> None:
        self.system = system
        self._turns: list[dict[str, str]] = []

    @property
    def messages(self) -> list[dict[str, str]]:
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        return head + self._turns

    def add(self, question: str, answer: str) -> None:
        self._turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def clear(self) -> None:
        self._turns.clear()


class Ended(Exception):
    """The user has no more to say."""


class Chat:
    """Reads messages and commands, prints answers. `parameters` go along with each request.

    `candidates`: how many answers each message gets; the conversation goes on with the one that the user picks, and
    with the first where nobody can be asked.
    """

    def __init__(self, client: Client, system: str | None, parameters: Mapping[str, Any], candidates: int) -> None:
        self._client = client
        self._candidates = candidates
        self._parameters = parameters
        self._conversation = Conversation(system)
        self._reads_terminal = sys.stdin.isatty()
        self._writes_terminal = sys.stdout.isatty()
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: print(HELP),
            "/system": self._set_system,
            "/save": self._save,
            "/clear": self._clear,
            "/quit": self._quit,
            "/exit": self._quit,
        }

    def run(self) -> None:
        """Until there is no more input. Raises `RemoteFailed` for a failure nobody sits there to see."""
        if self._reads_terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  # lines can be edited, and had back with the arrow keys
            print(f"{self._client.model or 'The model'} at {self._client.base_url}. /help says what else there is.")
        while True:
            try:
                message = self._read_message()
                if message.startswith("/") and not message.startswith("//"):
                    self._command(message)
                elif message.strip():
                    self._answer(message.removeprefix("/") if message.startswith("//") else message)
            except (Ended, EOFError):
                return
            except KeyboardInterrupt:
                if not self._reads_terminal:
                    raise
                print("\n/quit or Ctrl-D ends.")

    def _read_message(self) -> str:
        """Raises `EOFError` at the end of the input."""
        line = self._read_line(PROMPT)
        if line.strip() == BLOCK:
            return self._read_block()
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1].removesuffix("\\")
            lines.append(self._read_line(CONTINUED))
        return "\n".join(lines)

    def _read_block(self) -> str:
        lines: list[str] = []
        while (line := self._read_line(CONTINUED)).strip() != BLOCK:
            lines.append(line)
        return "\n".join(lines)

    def _read_line(self, prompt: str) -> str:
        try:
            return input(prompt if self._reads_terminal else "")
        except UnicodeDecodeError as error:
            raise ConfigError(f"standard input is not UTF-8 text ({error}).") from None

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        action = self._commands.get(name)
        if action is None:
            print(f"There is no {name}. /help lists what there is.", file=sys.stderr)
        else:
            action(rest.strip())

    def _set_system(self, text: str) -> None:
        self._conversation.system = text or None

    def _save(self, name: str) -> None:
        if not name:
            print("/save needs the name of a file.", file=sys.stderr)
            return
        messages = self._conversation.messages
        try:
            Path(name).expanduser().write_text(json.dumps(messages, indent=2, ensure_ascii=False) + "\n", "utf-8")
        except OSError as error:
            print(f"{name} cannot be written: {error.strerror}.", file=sys.stderr)
        else:
            print(f"Saved {len(messages)} messages to {name}.")

    def _clear(self, _: str) -> None:
        self._conversation.clear()

    def _quit(self, _: str) -> None:
        raise Ended

    def _answer(self, question: str) -> None:
        """Print the answer as it comes. A failed one is not remembered, one that was stopped is as far as it came."""
        messages = [*self._conversation.messages, {"role": "user", "content": question}]
        try:
            with explained(self._client.base_url):
                answer = self._stream(messages) if self._candidates == 1 else self._pick(self._draw(messages))
        except RemoteFailed as failure:
            if not self._reads_terminal:
                raise
            print(f"\nheadrace: {failure.message}", file=sys.stderr)
            return
        self._conversation.add(question, answer)

    def _stream(self, messages: list[dict[str, str]]) -> str:
        texts: list[str] = []
        note = ""
        try:
            with self._client.chat(messages, stream=True, **self._parameters) as chunks:
                for chunk in chunks:
                    texts.append(chunk.text)
                    print(shown(chunk.text) if self._writes_terminal else chunk.text, end="", flush=True)
                    if chunk.choices and chunk.choices[0].finish_reason == "length":
                        note = "[cut off: the answer is as long as it may be]"
        except KeyboardInterrupt:
            if not self._reads_terminal:
                raise
            note = "[stopped]"
        print()
        if note and self._writes_terminal:
            print(note)
        return "".join(texts)

    def _draw(self, messages: list[dict[str, str]]) -> list[str]:
        """All candidates, as far as they came if the user stopped them."""
        texts = [""] * self._candidates
        try:
            with self._client.chat(messages, stream=True, n=self._candidates, **self._parameters) as chunks:
                pieces = ((choice.index, choice.delta.content or "") for chunk in chunks for choice in chunk.choices)
                if self._writes_terminal:
                    draw_side_by_side(pieces, texts)
                else:
                    for index, piece in pieces:
                        texts[index] += piece
        except KeyboardInterrupt:
            if not self._reads_terminal:
                raise
        if not self._writes_terminal:
            print_one_by_one(texts, terminal=False)
        return texts

    def _pick(self, texts: list[str]) -> str:
        """The candidate to go on with. Raises `EOFError` and `KeyboardInterrupt`, and nothing is remembered then."""
        if not self._reads_terminal:
            return texts[0]
        while True:
            choice = input(f"Go on with which? [1-{len(texts)}, default 1] ").strip() or "1"
            if choice.isdecimal() and 1 <= int(choice) <= len(texts):
                return texts[int(choice) - 1]
            print(f"A number from 1 to {len(texts)}, or Enter for the first. Ctrl-C drops them all.")


def chat(remote: Remote, system: str | None, parameters: Mapping[str, Any], *, candidates: int) -> int:
    """Raises `ConfigError` and `RemoteFailed`."""
    if candidates < 1:
        raise ConfigError(f"--n must be at least 1, got {candidates}.")
    with remote.client() as client:
        try:
            Chat(client, system, parameters, candidates).run()
        except BrokenPipeError:
            drop_output()
            return EXIT_BROKEN_PIPE
    return 0
