"""One choice of a generation: its ids become text, and text may end it."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.request import FinishReason, TokenLogprobs
from headrace.core.sampling import SamplingParams
from headrace.service.answer_text import AnswerText
from headrace.service.logprobs import CONTEXT, LogprobRenderer
from headrace.service.types import Delta
from headrace.text import Tokenizer


class Choice:
    """Takes what the engine says of one choice and says it with text; in ids only if `tokenizer` is None.

    `tokens` counts the ids handed on; `finish_reason` is set once the choice has ended.
    """

    def __init__(
        self, index: int, prompt_ids: Sequence[int], sampling: SamplingParams, tokenizer: Tokenizer | None
    ) -> None:
        self.index = index
        self.tokens = 0
        self.finish_reason: FinishReason | None = None
        self._shows_stop_token = sampling.include_stop_str_in_output
        self._text = None if tokenizer is None else AnswerText(prompt_ids, sampling, tokenizer)
        self._renderer = LogprobRenderer(tokenizer)
        self._context = list(prompt_ids[-CONTEXT:])  # the ids before the next one, kept where logprobs are wanted

    def advance(
        self,
        token_ids: list[int],
        logprobs: Sequence[TokenLogprobs],
        finish_reason: FinishReason | None,
        stop_reason: int | None,
    ) -> Delta:
        """What these new tokens add. A stop string may end the choice before the last of them; those after it are lost.

        The engine ends a sequence with STOP only at an EOS or stop token, which is then the last of `token_ids`.
        """
        text = ""
        reason: int | str | None = stop_reason
        if self._text is not None:
            text, kept, stop = self._read(self._text, token_ids, finish_reason)
            if stop is not None:
                finish_reason, reason = FinishReason.STOP, stop
                token_ids, logprobs = token_ids[:kept], logprobs[:kept]
        self.finish_reason = finish_reason
        self.tokens += len(token_ids)
        positions = []
        if logprobs:
            positions = self._renderer.run(logprobs, self._context)
            self._context = (self._context + token_ids)[-CONTEXT:]
        return Delta(self.index, text, token_ids, positions, finish_reason, reason)

    def _read(
        self, answer: AnswerText, token_ids: list[int], finish_reason: FinishReason | None
    ) -> tuple[str, int, str | None]:
        """The text to show, the number of ids up to its end, and the stop string that ended it, if one did."""
        stop_token = token_ids[-1:] if finish_reason is FinishReason.STOP else []
        text, kept, stop = answer.push(token_ids[: len(token_ids) - len(stop_token)])
        if stop is not None or finish_reason is None:
            return text, kept, stop
        if stop_token and self._shows_stop_token:
            return text + answer.finish_with(stop_token), len(token_ids), None
        rest, stop = answer.finish()
        return text + rest, len(token_ids), stop
