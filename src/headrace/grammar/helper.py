"""The process that compiles constraints: `python -m headrace.grammar.helper`.

Its first task is a `Setting`, the others are `StructuredOutputsParams`, each answered by a `Compiled`. There are always
constraints that take hours to read, and no way to end that but with the process.
"""

from __future__ import annotations

import msgspec

from headrace.core.errors import BadRequest
from headrace.core.helper_process import answer, bound_cpu_time, bound_memory, tasks
from headrace.core.structured import StructuredOutputsParams
from headrace.core.vocabulary import Vocabulary
from headrace.grammar.compiler import GrammarCompiler

_MEMORY_BYTES = 1 << 30
"""What compiling may take, beyond what this process needs by itself."""


class Setting(msgspec.Struct):
    """What constraints are compiled for. `cpu_seconds` ends the process of a task that nobody awaits."""

    vocabulary: Vocabulary
    vocab_size: int
    cpu_seconds: float


class Compiled(msgspec.Struct):
    """The grammar, or why there is none."""

    grammar: str | None
    refusal: str = ""


encode = msgspec.msgpack.Encoder().encode
decode_setting = msgspec.msgpack.Decoder(Setting).decode
decode_params = msgspec.msgpack.Decoder(StructuredOutputsParams).decode
decode_compiled = msgspec.msgpack.Decoder(Compiled).decode


def main() -> None:
    asked = tasks()
    if (first := next(asked, None)) is None:
        return
    setting = decode_setting(first)
    compiler = GrammarCompiler(setting.vocabulary, setting.vocab_size)
    bound_memory(_MEMORY_BYTES)
    answer(b"")
    for message in asked:
        bound_cpu_time(setting.cpu_seconds)
        answer(encode(_compiled(compiler, message)))


def _compiled(compiler: GrammarCompiler, message: bytes) -> Compiled:
    try:
        return Compiled(compiler.compile(decode_params(message)))
    except BadRequest as error:
        return Compiled(None, error.message)


if __name__ == "__main__":
    main()
