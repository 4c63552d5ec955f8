"""The text of one answer as it grows: decoded id by id, searched for stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.sampling import SamplingParams
from headrace.service.stopping import StopSearch
from headrace.text import Tokenizer


class AnswerText:
    """Pieces of text that may be shown. After a stop string was found, nothing more must be pushed."""

    def __init__(self, prompt_ids: Sequence[int], sampling: SamplingParams, tokenizer: Tokenizer) -> None:
        self._decoder = tokenizer.decoder(
            prompt_ids,
            skip_special_tokens=sampling.skip_special_tokens,
            spaces_between_special_tokens=sampling.spaces_between_special_tokens,
        )
        self._search: StopSearch | None = None
        if sampling.stop_strings:
            self._search = StopSearch(
                sampling.stop_strings,
                include_stop=sampling.include_stop_str_in_output,
                min_tokens=sampling.min_tokens,
            )

    def push(self, token_ids: Sequence[int]) -> tuple[str, int, str | None]:
        """The text these ids complete, the number of them that belong to it, and the stop string found, if any."""
        if self._search is None:
            return self._decoder.push(token_ids), len(token_ids), None
        shown = []
        for count, token_id in enumerate(token_ids, start=1):
            text, stop = self._search.push_token(self._decoder.push([token_id]))
            shown.append(text)
            if stop is not None:
                return "".join(shown), count, stop
        return "".join(shown), len(token_ids), None

    def finish(self) -> tuple[str, str | None]:
        """All that was still held back, and the stop string that even this completed, if any."""
        rest = self._decoder.finish()
        return (rest, None) if self._search is None else self._search.finish(rest)

    def finish_with(self, stop_token: Sequence[int]) -> str:
        """As `finish`, with the text of the token that has ended the answer; it is not searched."""
        held = "" if self._search is None else self._search.release()
        return held + self._decoder.push(stop_token) + self._decoder.finish()
