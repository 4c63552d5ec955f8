"""What the engine receives and what it sends back: token ids, never text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from headrace.core.pooling import PoolingInfo, PoolingOutput
from headrace.core.sampling import EarlyStopping, TokenSampling


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearch:
    """Search for the likeliest answers, `width` beams at a time, instead of sampling.

    A beam's score is its cumulative log-probability divided by its length to the power of `length_penalty`, where the
    length is that of prompt and output, less a final end-of-sequence token.

    The search ends after `max_tokens`, when unfinished beams count as well, or before that once `width` beams have
    finished and, by `early_stopping`: True: at once; False: the best unfinished beam, as long as it is now, scores no
    better than the worst of them; "never": no continuation of it, of whatever length, can score better. A beam then
    finishes with an end-of-sequence token only if that is among the `width` best continuations of its step, so that
    unlikely endings do not use up the search.
    None: as "never", but every end-of-sequence token among the best `2 * width` tokens after a beam finishes it.
    `shown`: tell the best beams after every step, not only at the end.
    """

    width: int
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = None
    shown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how to continue it, `n` times.

    With `beam` the answers are the `n` best beams of a search, best first. Of `sampling` it then uses the limits on
    length, `eos_token_id` with `ignore_eos`, and the log-probabilities asked for.
    `request_id` is unique within an engine. `priority`: lower runs first (priority scheduling only).
    `arrival_time`: `time.monotonic()` seconds, comparable between processes of one machine.
    `cache_salt` separates prefix-cache entries of callers that must not share them.
    """

    request_id: str
    prompt_ids: list[int]
    sampling: TokenSampling
    n: int = 1
    priority: int = 0
    arrival_time: float = 0.0
    cache_salt: str | None = None
    beam: BeamSearch | None = None


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one position, of the raw distribution (before penalties and temperature).

    `rank` is the 1-based rank of `token_id` in the whole vocabulary. `top_ids` and `top_logprobs` are the best
    tokens, best first, as many as were asked for; the chosen token need not be among them. Where certain tokens were
    asked for they are these, in the caller's order, and `top_ranks` their ranks; else `top_ranks` is None, for 1, 2, ….
    """

    token_id: int
    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]
    top_ranks: list[int] | None = None


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """What one step added to choice `choice` of a request.

    `logprobs` has one entry per id of `token_ids` where they were asked for, else it is empty.
    `prompt_logprobs` are the entries of the next prompt positions in order; position 0 has none and is skipped.
    `stop_reason` is the stop token's id if one of the request's own stop tokens ended the sequence, or if any token
    ended a beam.
    A beam search says nothing of its choices until it ends; each then comes whole, with its `cumulative_logprob`.
    `beams`: the ids of the best beams so far, best first, where they are to be shown; one choice speaks for all.
    `cached_tokens` (prompt tokens found in the prefix cache) and `scheduled_time` (monotonic seconds at which the
    sequence first ran) come once, with its first output. `error` says what failed where `finish_reason` is ERROR, and
    `refused` that it is the request itself, which nobody but the caller can mend.
    """

    request_id: str
    choice: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    cached_tokens: int | None = None
    scheduled_time: float | None = None
    error: str | None = None
    refused: bool = False
    cumulative_logprob: float | None = None
    beams: list[list[int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """State of the engine after a step, and what the step did. Durations in seconds, counts in tokens.

    `masked_tokens` are those tokens that had to follow a grammar, and `mask_seconds` what it took, beside the forward
    pass, to find what was allowed in their place.
    """

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    masked_tokens: int = 0
    mask_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Everything one step of the engine has to tell: new tokens, endings, and its statistics.

    An engine that generates fills `sequences`, one that pools `pooled`.
    """

    sequences: list[SequenceOutput]
    stats: StepStats
    pooled: list[PoolingOutput] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine says of itself once its model is loaded.

    `pooling` is there if it pools, in place of generating. It then keeps nothing between steps: `num_blocks` is 0.
    """

    architecture: str
    vocab_size: int
    max_model_len: int
    dtype: str
    device: str
    kernels: str
    block_size: int
    num_blocks: int
    load_seconds: float
    pooling: PoolingInfo | None = None

    @property
    def kv_capacity(self) -> int:
        """Tokens whose keys and values fit in the KV cache."""
        return self.block_size * self.num_blocks
