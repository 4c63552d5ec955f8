"""The bars that `LLM` shows while it works."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm.auto import tqdm

from headrace.outputs import RequestOutput
from headrace.service.pooling_types import OnProgress

Bar = bool | Callable[..., Any]
"""Whether to show a progress bar, or what to make it with in place of `tqdm`."""

_TITLE = "Processed prompts"


class GenerationProgress:
    """A bar that counts finished prompts and shows tokens a second."""

    def __init__(self, make_bar: Callable[..., Any], prompts: int) -> None:
        self._bar = make_bar(total=prompts, desc=_TITLE, dynamic_ncols=True)
        self._start = time.monotonic()
        self._read = 0
        self._written = 0

    def finished(self, output: RequestOutput) -> None:
        self._read += len(output.prompt_token_ids)
        self._written += sum(len(answer.token_ids) for answer in output.outputs)
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix_str(
            f"input {self._read / seconds:.1f} tok/s, output {self._written / seconds:.1f} tok/s", refresh=False
        )
        self._bar.update(1)

    def close(self) -> None:
        self._bar.close()


@contextlib.contextmanager
def generation_progress(use_tqdm: Bar, prompts: int) -> Iterator[GenerationProgress | None]:
    if use_tqdm is False or not prompts:
        yield None
        return
    with contextlib.closing(GenerationProgress(tqdm if use_tqdm is True else use_tqdm, prompts)) as progress:
        yield progress


@contextlib.contextmanager
def pooling_progress(use_tqdm: Bar, inputs: int) -> Iterator[OnProgress | None]:
    """What counts the inputs that are done."""
    if use_tqdm is False or not inputs:
        yield None
        return
    make_bar = tqdm if use_tqdm is True else use_tqdm
    with contextlib.closing(make_bar(total=inputs, desc=_TITLE, dynamic_ncols=True)) as bar:

        def done(count: int, total: int) -> None:
            bar.total = total
            bar.update(count - bar.n)

        yield done
