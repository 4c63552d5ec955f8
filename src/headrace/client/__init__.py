"""A client for Headrace servers and for all that speak the same protocols, sync and async.

    from headrace.client import Client

    with Client("http://localhost:8000") as client:
        print(client.complete("The capital of France is", max_tokens=8).text)

It needs httpx and msgspec, and nothing of the server.
"""

from headrace.client.async_client import AsyncClient, AsyncStream
from headrace.client.async_jobs import AsyncJobs, AsyncJobStream
from headrace.client.errors import (
    AuthenticationError,
    BadRequestError,
    ClientError,
    ConflictError,
    ConnectFailed,
    JobFailed,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StatusError,
    TimedOut,
    TransportError,
)
from headrace.client.results import (
    Answer,
    ChatChunk,
    ChatCompletion,
    Classification,
    Completion,
    Embeddings,
    Job,
    JobHealth,
    Model,
    Ranking,
    Scores,
    Tokenized,
    TokensCompletion,
    Usage,
)
from headrace.client.retry import RetryPolicy
from headrace.client.sync_client import Client, Stream
from headrace.client.sync_jobs import Jobs, JobStream

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncJobStream",
    "AsyncJobs",
    "AsyncStream",
    "AuthenticationError",
    "BadRequestError",
    "ChatChunk",
    "ChatCompletion",
    "Classification",
    "Client",
    "ClientError",
    "Completion",
    "ConflictError",
    "ConnectFailed",
    "Embeddings",
    "Job",
    "JobFailed",
    "JobHealth",
    "JobStream",
    "Jobs",
    "Model",
    "NotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "Ranking",
    "RateLimitError",
    "RetryPolicy",
    "Scores",
    "ServerError",
    "StatusError",
    "Stream",
    "TimedOut",
    "Tokenized",
    "TokensCompletion",
    "TransportError",
    "Usage",
]
