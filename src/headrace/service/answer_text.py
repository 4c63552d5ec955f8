"""The text of one answer as it grows: decoded id by id, searched for stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.sampling import SamplingParams
from headrace.text import StopMatcher, Tokenizer


class AnswerText:
    """Pieces of text that may be shown. After a stop string was found, nothing more must be pushed.

    Stop strings completed within the first `min_tokens` ids do not count, then or later.
    """

    def __init__(self, prompt_ids: Sequence[int], sampling: SamplingParams, tokenizer: Tokenizer) -> None:
        self._decoder = tokenizer.decoder(
            prompt_ids,
            skip_special_tokens=sampling.skip_special_tokens,
            spaces_between_special_tokens=sampling.spaces_between_special_tokens,
        )
        self._searches = bool(sampling.stop_strings)
        self._matcher = StopMatcher(sampling.stop_strings, include_stop=sampling.include_stop_str_in_output)
        self._unsearched_ids = sampling.min_tokens

    def push(self, token_ids: Sequence[int]) -> tuple[str, int, str | None]:
        """The text these ids complete, the number of them that belong to it, and the stop string found, if any."""
        if not self._searches:
            return self._decoder.push(token_ids), len(token_ids), None
        shown = []
        for count, token_id in enumerate(token_ids, start=1):
            text, stop = self._search(self._decoder.push([token_id]))
            self._unsearched_ids -= 1
            shown.append(text)
            if stop is not None:
                return "".join(shown), count, stop
        return "".join(shown), len(token_ids), None

    def finish(self) -> tuple[str, str | None]:
        """All that was still held back, and the stop string that even this completed, if any."""
        text, stop = self._search(self._decoder.finish())
        return (text, stop) if stop is not None else (text + self._matcher.finish(), None)

    def finish_with(self, stop_token: Sequence[int]) -> str:
        """As `finish`, with the text of the token that has ended the answer; it is not searched."""
        return self._matcher.finish() + self._decoder.push(stop_token) + self._decoder.finish()

    def _search(self, text: str) -> tuple[str, str | None]:
        if self._unsearched_ids > 0:
            return self._matcher.pass_over(text), None
        return self._matcher.push(text)
