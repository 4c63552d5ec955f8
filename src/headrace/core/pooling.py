"""What an engine that pools receives and sends back: token ids in, vectors or scores out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace.core.errors import BadRequest


class PoolingTask(StrEnum):
    """What becomes of an input."""

    EMBED = "embed"
    """One vector."""
    CLASSIFY = "classify"
    """A score for each class."""
    TOKEN_EMBED = "token_embed"
    """A vector for each token."""
    TOKEN_CLASSIFY = "token_classify"
    """A score for each class, for each token."""

    @property
    def embeds(self) -> bool:
        """Whether the outcome are vectors, not scores."""
        return self in (PoolingTask.EMBED, PoolingTask.TOKEN_EMBED)

    @property
    def per_token(self) -> bool:
        return self in (PoolingTask.TOKEN_EMBED, PoolingTask.TOKEN_CLASSIFY)


class PoolingMode(StrEnum):
    """How the hidden states of a sequence become one vector."""

    CLS = "cls"
    """That of the first token."""
    LAST = "last"
    """That of the last token."""
    MEAN = "mean"
    MAX = "max"
    """Of each element by itself."""
    MEAN_SQRT_LEN = "mean_sqrt_len"
    """Their sum, divided by the square root of their number."""
    WEIGHTED_MEAN = "weighted_mean"
    """Their mean, where the first token counts once, the second twice, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """What to compute. Raises `BadRequest` if that makes no sense.

    `use_activation`: whether vectors are normalised to length 1 and scores go through the model's activation; None:
    as the model has it. `dimensions`: keep so many values of each vector, its first ones; for models made for that.
    """

    task: PoolingTask
    use_activation: bool | None = None
    dimensions: int | None = None

    def __post_init__(self) -> None:
        if self.dimensions is None:
            return
        if self.dimensions < 1:
            raise BadRequest(
                f"dimensions must be at least 1, got {self.dimensions}.",
                parameter="dimensions",
                value=self.dimensions,
            )
        if not self.task.embeds:
            raise BadRequest(
                f"dimensions cannot be given for the task {self.task}: it makes scores, not vectors.",
                parameter="dimensions",
                value=self.dimensions,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRequest:
    """One input of a model that pools.

    `token_type_ids`, one for each token, say which part of a pair it belongs to; None: all of them to the first.
    The other fields are those of `Request`.
    """

    request_id: str
    prompt_ids: list[int]
    params: PoolingParams
    token_type_ids: list[int] | None = None
    priority: int = 0
    arrival_time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingOutput:
    """What came of a request; the only thing that is said of it.

    `data` are float32 numbers, little-endian, in C order, of an array of this `shape`: [size] or, for tasks per token,
    [tokens, size]. Where something failed, `error` says what, and both are empty. `scheduled_time`: monotonic seconds
    at which the request ran; None if it never did.
    """

    request_id: str
    shape: list[int]
    data: bytes
    error: str | None = None
    scheduled_time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingInfo:
    """What an engine that pools says of its model, once that is loaded.

    `tasks`: those it can do, its default first. `embedding_size`: values in a vector; None where it makes none.
    `max_seq_length`: the tokens to which longer input is cut; None: longer input is refused.
    `type_vocab_size`: different token types it can tell apart; 0 or 1: it knows no parts.
    `labels`: the names of the classes, "" for one without; empty where it makes no scores.
    `matryoshka_dimensions`: None: vectors cannot be shortened; empty: to any length; else to these.
    `use_activation`: whether it normalises or activates where a request does not say.
    `is_causal`: it is a decoder, which reads a pair as one text.
    """

    tasks: tuple[PoolingTask, ...]
    embedding_size: int | None = None
    max_seq_length: int | None = None
    type_vocab_size: int = 0
    labels: tuple[str, ...] = ()
    matryoshka_dimensions: tuple[int, ...] | None = None
    use_activation: bool = True
    is_causal: bool = False

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    def check(self, params: PoolingParams) -> None:
        """Raises `BadRequest`, naming the parameter, if the model cannot do this."""
        if params.task not in self.tasks:
            raise BadRequest(
                f"This model cannot do the task {params.task}; it can do: {', '.join(self.tasks)}.",
                parameter="task",
                value=params.task.value,
            )
        if params.dimensions is not None and (refusal := self._refusal(params.dimensions)):
            raise BadRequest(refusal, parameter="dimensions", value=params.dimensions)

    def _refusal(self, dimensions: int) -> str | None:
        if self.matryoshka_dimensions is None:
            return "This model does not support Matryoshka representations: dimensions must be unset."
        if self.matryoshka_dimensions and dimensions not in self.matryoshka_dimensions:
            allowed = ", ".join(map(str, self.matryoshka_dimensions))
            return f"dimensions must be one of {allowed} for this model, got {dimensions}."
        if self.embedding_size is not None and dimensions > self.embedding_size:
            return f"dimensions must be from 1 to {self.embedding_size} for this model, got {dimensions}."
        return None
