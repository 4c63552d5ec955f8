"""What a caller asks of a model that pools, and what it gets. Plain data, free of any protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.core.pooling import PoolingParams

Side = Literal["left", "right"]

OnProgress = Callable[[int, int], None]
"""Called on the event loop with the inputs that are done, and with their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How inputs become what the model reads. `add_special_tokens` concerns texts only.

    `truncate_prompt_tokens` keeps that many tokens, special ones included; -1 and None as many as the model reads.
    `truncation_side` is the end that is cut.
    """

    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    truncation_side: Side = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Inputs, each a text or token ids, and what to make of each of them.

    `request_id` is the caller's own name for all of it, for logs. `priority`: lower runs first.
    """

    inputs: Sequence[str | Sequence[int]]
    params: PoolingParams
    request_id: str
    encoding: Encoding = Encoding()
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Pairs of a query and a document, to be scored: one query for all documents, or one for each.

    `use_activation`: as in `PoolingParams`. `max_tokens_per_query` and `max_tokens_per_doc` cut the texts before they
    are put together; 0: no cut. `template_kwargs` are variables of the chat template that makes a prompt of a pair, for
    models that were started with one. The other fields are those of `Pooling`.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    request_id: str
    use_activation: bool | None = None
    max_tokens_per_query: int = 0
    max_tokens_per_doc: int = 0
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Encoding = Encoding()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class PreparedInput:
    """One input as the engine gets it. `type_ids`: for each token, which text of a pair it is of; None: no pair."""

    ids: list[int]
    type_ids: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Pooled:
    """What came of one input. `data` and `shape` are those of a `PoolingOutput`."""

    prompt_ids: list[int]
    shape: list[int]
    data: bytes

    def values(self) -> list[Any]:
        """The numbers: a list, or for tasks per token a list of lists."""
        return memoryview(self.data).cast("f", self.shape).tolist()


@dataclass(frozen=True, slots=True)
class Scores:
    """`scores`, one for each pair. `prompt_ids`: what was read for each, of both texts if they were read apart.

    `prompt_tokens`: of the whole request, in which the one query for all documents counts once if it was read apart.
    """

    scores: list[float]
    prompt_ids: list[list[int]]
    prompt_tokens: int
