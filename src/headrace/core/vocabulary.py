"""The vocabulary of a model as bytes: all that is to be known of it to hold an answer to a grammar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """`tokens[i]` are the bytes that token i adds to a text; nothing for ids that are not in use.

    `special_ids`, in ascending order, are the tokens that are no text, whatever their bytes look like: control tokens,
    and with them `eos_ids`, at least one, each of which ends an answer.
    """

    tokens: list[bytes]
    special_ids: tuple[int, ...]
    eos_ids: tuple[int, ...]

    def special(self, text: str) -> int | None:
        """The special token that is written as `text`, if there is one."""
        return self.special_in(text).get(text)

    def special_in(self, text: str) -> dict[str, int]:
        """The special tokens that are written somewhere in `text`, the longest first."""
        written = text.encode(errors="surrogatepass")
        found = {self.tokens[token_id]: token_id for token_id in self.special_ids if self.tokens[token_id] in written}
        return {
            spelled.decode(errors="replace"): found[spelled]
            for spelled in sorted(found, key=len, reverse=True)
            if spelled
        }
