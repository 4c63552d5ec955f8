"""What the server answers, typed. Fields that a struct does not know are skipped: servers add some all the time.

Only what every server of the family sends is required; the rest has a default.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class Result(Struct, frozen=True, omit_defaults=True):
    """Base of all results. One that is sent back (a message of a conversation) goes without what it does not say."""


class PromptTokenDetails(Result, frozen=True):
    cached_tokens: int | None = None


class Usage(Result, frozen=True):
    """Tokens, of all choices together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokenDetails | None = None


class PromptToken(Result, frozen=True):
    """`rank` is 1-based in the whole vocabulary."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


PromptLogprobs = list[dict[str, PromptToken] | None]
"""For each prompt token, by token id: its log-probability and those of the best ones. None for the first token."""


class CompletionLogprobs(Result, frozen=True):
    """Parallel lists, one entry a token."""

    text_offset: list[int] = []
    token_logprobs: list[float | None] = []
    tokens: list[str] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class CompletionChoice(Result, frozen=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Completion(Result, frozen=True):
    """An answer of /v1/completions, or a chunk of one: then the texts are what is new. `created` in Unix seconds."""

    choices: list[CompletionChoice]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The text of the first choice; "" in a chunk that has none."""
        return self.choices[0].text if self.choices else ""


class ToolFunction(Result, frozen=True):
    """In a chunk, `arguments` (JSON text) is what is new, and the name comes once."""

    name: str | None = None
    arguments: str = ""


class ToolCall(Result, frozen=True):
    """`index` tells the calls of a stream apart."""

    function: ToolFunction
    id: str | None = None
    index: int | None = None


class ChatMessage(Result, frozen=True):
    """What the model said; in a chunk, what is new of it."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class AlternativeToken(Result, frozen=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(Result, frozen=True):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[AlternativeToken] = []


class ChatLogprobs(Result, frozen=True):
    content: list[TokenLogprob] | None = None


class ChatChoice(Result, frozen=True):
    message: ChatMessage
    index: int = 0
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class ChatCompletion(Result, frozen=True):
    """An answer of /v1/chat/completions. `created` in Unix seconds."""

    choices: list[ChatChoice]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None
    prompt_text: str | None = None

    @property
    def text(self) -> str:
        """What the first choice says; "" if it says nothing."""
        return (self.choices[0].message.content or "") if self.choices else ""


class ChatChunkChoice(Result, frozen=True):
    delta: ChatMessage
    index: int = 0
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class ChatChunk(Result, frozen=True):
    """A piece of a streamed chat. The one with the usage has no choices."""

    choices: list[ChatChunkChoice]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None
    prompt_text: str | None = None

    @property
    def text(self) -> str:
        """What is new in the first choice of this chunk; "" if there is nothing."""
        return (self.choices[0].delta.content or "") if self.choices else ""


class RankedToken(Result, frozen=True):
    """A token by its id and `rank`, 1-based in the whole vocabulary; in the output mode "text" by its text."""

    logprob: float
    token_id: int | None = None
    rank: int | None = None
    token: str | None = None
    bytes: list[int] | None = None


class PositionLogprobs(RankedToken, frozen=True):
    """The token at one position, and the best ones there."""

    top_logprobs: list[RankedToken] = []


class TokensLogprobs(Result, frozen=True):
    content: list[PositionLogprobs] | None = None


class TokensChoice(Result, frozen=True):
    """`text` is there in the output mode of that name."""

    token_ids: list[int]
    index: int = 0
    text: str | None = None
    logprobs: TokensLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class TokensCompletion(Result, frozen=True):
    """An answer of /inference/v1/generate, or a chunk of one: then the ids are what is new."""

    choices: list[TokensChoice]
    request_id: str = ""
    model: str = ""
    created: int = 0
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None

    @property
    def token_ids(self) -> list[int]:
        """The ids of the first choice; none in a chunk that has no choice."""
        return self.choices[0].token_ids if self.choices else []


class Embedding(Result, frozen=True):
    """`index` says which input it is of; `vector`, on the wire "embedding", has float32 values."""

    index: int
    vector: list[float] = field(name="embedding")


class Embeddings(Result, frozen=True):
    """An answer of /v1/embeddings, one for each input, in their order. `created` in Unix seconds."""

    data: list[Embedding]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None

    @property
    def vectors(self) -> list[list[float]]:
        return [embedding.vector for embedding in self.data]


class ClassifiedInput(Result, frozen=True):
    """`label` is the name of the likeliest class, None if the model names none; `probs` has one for each class."""

    index: int
    probs: list[float]
    label: str | None = None
    num_classes: int = 0


class Classification(Result, frozen=True):
    """An answer of /classify, one for each input, in their order."""

    data: list[ClassifiedInput]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None

    @property
    def labels(self) -> list[str | None]:
        return [classified.label for classified in self.data]


class Score(Result, frozen=True):
    index: int
    score: float


class Scores(Result, frozen=True):
    """An answer of /v1/score, one for each pair, in their order."""

    data: list[Score]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None

    @property
    def scores(self) -> list[float]:
        return [pair.score for pair in self.data]


class RankedDocument(Result, frozen=True):
    """`index` is the place of the document in the request."""

    index: int
    relevance_score: float
    document: Any = None


class Ranking(Result, frozen=True):
    """An answer of /v1/rerank: the documents, the most relevant first."""

    results: list[RankedDocument]
    id: str = ""
    model: str = ""
    usage: Usage | None = None

    @property
    def order(self) -> list[int]:
        """Places of the documents in the request, that of the most relevant first."""
        return [ranked.index for ranked in self.results]


class Answer(Result, frozen=True):
    """What the server says to any request, as it came: a JSON value. `request_id` names it in the server's log."""

    body: Any
    request_id: str | None = None


class Tokenized(Result, frozen=True):
    """`max_model_len`: how many tokens the model's context holds."""

    tokens: list[int]
    count: int
    max_model_len: int = 0
    token_strs: list[str] | None = None


class Model(Result, frozen=True):
    """A model that is served. `root` is where it comes from, `max_model_len` how many tokens its context holds."""

    id: str
    created: int = 0
    owned_by: str = ""
    root: str | None = None
    max_model_len: int | None = None


class Job(Result, frozen=True, rename="camel"):
    """A job at one moment. `delay_time`, `execution_time`: milliseconds. `output` is there once it is complete.

    `status`: IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED or TIMED_OUT.
    """

    id: str
    status: str
    delay_time: int | None = None
    execution_time: int | None = None
    worker_id: str | None = None
    output: Any = None
    error: str | None = None
    retries: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ENDED


ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
"""States that a job does not leave by itself."""


class JobChunk(Result, frozen=True):
    output: Any


class JobPage(Result, frozen=True):
    """One poll of a job's stream."""

    status: str
    stream: list[JobChunk] = []
    error: str | None = None


class JobCounts(Result, frozen=True, rename="camel"):
    """`in_progress` and `in_queue` are now; the others are totals over the life of the queue."""

    completed: int = 0
    failed: int = 0
    in_progress: int = 0
    in_queue: int = 0
    retried: int = 0


class WorkerCounts(Result, frozen=True):
    idle: int = 0
    initializing: int = 0
    ready: int = 0
    running: int = 0
    throttled: int = 0
    unhealthy: int = 0


class JobHealth(Result, frozen=True):
    jobs: JobCounts
    workers: WorkerCounts
