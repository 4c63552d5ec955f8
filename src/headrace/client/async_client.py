"""`AsyncClient`: as many answers at a time as there are tasks. `sync_client.py` is its twin; `calls.py` is both's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

import httpx

from headrace.client import calls
from headrace.client.async_jobs import AsyncJobs
from headrace.client.call import Call, StreamCall, check_status, transport_errors
from headrace.client.calls import Inputs, Prompt, Texts, fields_of
from headrace.client.errors import ClientError
from headrace.client.lanes import over_tcp
from headrace.client.parameters import (
    ChatParameters,
    CompletionParameters,
    EmbedParameters,
    LegacySampling,
    Message,
    PoolingParameters,
    SamplingParams,
    TokenizeParameters,
    TokensParameters,
)
from headrace.client.results import (
    Answer,
    ChatChunk,
    ChatCompletion,
    Classification,
    Completion,
    Embeddings,
    Model,
    Ranking,
    Scores,
    Tokenized,
    TokensCompletion,
)
from headrace.client.retry import Attempts, RetryPolicy
from headrace.client.settings import DEFAULT_TIMEOUT, LIMITS, Settings
from headrace.client.streams import StreamReader

T = TypeVar("T")


class AsyncStream(Generic[T]):
    """Chunks as they come. Leaving the `with` block, or `aclose`, hangs up; the server stops generating then.

    Iterating raises `ProtocolError` for a malformed chunk or an early end, `StatusError` for an error that the server
    puts into the stream, `TransportError` if the connection breaks.
    """

    def __init__(self, response: httpx.Response, pieces: AsyncIterator[bytes], reader: StreamReader[T]) -> None:
        self._response = response
        self._pieces = pieces
        self._reader = reader
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            while (item := self._reader.take()) is None:
                if self._reader.at_end:
                    raise StopAsyncIteration
                with transport_errors():
                    piece = await anext(self._pieces, b"")
                self._reader.feed(piece)
        except BaseException:
            await self.aclose()
            raise
        return item

    async def aclose(self) -> None:
        self._closed = True
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncClient:
    """Talks to a Headrace server, or to any other that speaks OpenAI's API. For one event loop.

        async with AsyncClient() as client:
            print((await client.complete("The capital of France is", max_tokens=8)).text)
            async with await client.chat([{"role": "user", "content": "Hello"}], stream=True) as stream:
                async for chunk in stream:
                    print(chunk.text, end="")

    Arguments and errors are those of `Client`. A task that is cancelled hangs up, and the server stops generating.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = Settings.of(base_url, api_key, model, headers)
        self._retry = retry or RetryPolicy()
        self._http = httpx.AsyncClient(
            base_url=self._settings.base_url,
            headers=self._settings.http_headers(),
            timeout=timeout,
            limits=LIMITS,
            transport=transport or over_tcp(),
        )
        self.jobs = AsyncJobs(self._send)
        """The jobs of the endpoint `default`."""

    @property
    def base_url(self) -> str:
        return self._settings.base_url

    @property
    def model(self) -> str | None:
        """For requests that name none."""
        return self._settings.model

    @overload
    async def complete(
        self, prompt: Prompt, *, stream: Literal[False] = False, **parameters: Unpack[CompletionParameters]
    ) -> Completion: ...
    @overload
    async def complete(
        self, prompt: Prompt, *, stream: Literal[True], **parameters: Unpack[CompletionParameters]
    ) -> AsyncStream[Completion]: ...
    async def complete(
        self, prompt: Prompt, *, stream: bool = False, **parameters: Unpack[CompletionParameters]
    ) -> Completion | AsyncStream[Completion]:
        """Continue one prompt or several, each text or token ids. A stream's chunks hold what is new."""
        fields = self._fields(parameters, prompt=prompt)
        if stream:
            return await self._open(calls.complete_stream(fields))
        return await self._send(calls.complete(fields))

    @overload
    async def chat(
        self, messages: Sequence[Message], *, stream: Literal[False] = False, **parameters: Unpack[ChatParameters]
    ) -> ChatCompletion: ...
    @overload
    async def chat(
        self, messages: Sequence[Message], *, stream: Literal[True], **parameters: Unpack[ChatParameters]
    ) -> AsyncStream[ChatChunk]: ...
    async def chat(
        self, messages: Sequence[Message], *, stream: bool = False, **parameters: Unpack[ChatParameters]
    ) -> ChatCompletion | AsyncStream[ChatChunk]:
        """The next message of a conversation."""
        fields = self._fields(parameters, messages=messages)
        if stream:
            return await self._open(calls.chat_stream(fields))
        return await self._send(calls.chat(fields))

    @overload
    async def tokens(
        self,
        token_ids: Sequence[int],
        sampling_params: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        **parameters: Unpack[TokensParameters],
    ) -> TokensCompletion: ...
    @overload
    async def tokens(
        self,
        token_ids: Sequence[int],
        sampling_params: SamplingParams | None = None,
        *,
        stream: Literal[True],
        **parameters: Unpack[TokensParameters],
    ) -> AsyncStream[TokensCompletion]: ...
    async def tokens(
        self,
        token_ids: Sequence[int],
        sampling_params: SamplingParams | None = None,
        *,
        stream: bool = False,
        **parameters: Unpack[TokensParameters],
    ) -> TokensCompletion | AsyncStream[TokensCompletion]:
        """Token ids in, token ids out. Without `max_tokens` the answer may fill the context."""
        fields = self._fields(parameters, token_ids=token_ids, sampling_params=sampling_params or {})
        if stream:
            return await self._open(calls.tokens_stream(fields))
        return await self._send(calls.tokens(fields))

    @overload
    async def legacy_generate(
        self, prompt: str, *, stream: Literal[False] = False, **sampling: Unpack[LegacySampling]
    ) -> list[str]: ...
    @overload
    async def legacy_generate(
        self, prompt: str, *, stream: Literal[True], **sampling: Unpack[LegacySampling]
    ) -> AsyncStream[list[str]]: ...
    async def legacy_generate(
        self, prompt: str, *, stream: bool = False, **sampling: Unpack[LegacySampling]
    ) -> list[str] | AsyncStream[list[str]]:
        """The texts of all candidates, prompt included; a stream repeats them whole each time that one has grown."""
        fields = {"prompt": prompt, **sampling}
        if stream:
            return await self._open(calls.legacy_stream(fields))
        return await self._send(calls.legacy_generate(fields))

    async def embed(self, given: Inputs, **parameters: Unpack[EmbedParameters]) -> Embeddings:
        """A vector for each text or list of token ids; one for a conversation."""
        return await self._send(calls.embed(given, self._fields(parameters)))

    async def classify(self, given: Inputs, **parameters: Unpack[PoolingParameters]) -> Classification:
        """The probability of each class, for each text or list of token ids, or for a conversation."""
        return await self._send(calls.classify(given, self._fields(parameters)))

    async def score(self, text_1: Texts, text_2: Texts, **parameters: Unpack[PoolingParameters]) -> Scores:
        """How well texts match: one with each of several, or two lists pair by pair."""
        return await self._send(calls.score(self._fields(parameters, text_1=text_1, text_2=text_2)))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        **parameters: Unpack[PoolingParameters],
    ) -> Ranking:
        """The documents in the order of their relevance; the first `top_n` of them, if that is given."""
        fields = self._fields(parameters, query=query, documents=documents, top_n=top_n)
        return await self._send(calls.rerank(fields))

    async def tokenize(self, given: str | Sequence[Message], **parameters: Unpack[TokenizeParameters]) -> Tokenized:
        """The token ids of a text, or of a conversation as the model's chat template renders it."""
        return await self._send(calls.tokenize(given, self._fields(parameters)))

    async def detokenize(self, token_ids: Sequence[int], *, model: str | None = None) -> str:
        return await self._send(calls.detokenize(token_ids, self._fields({"model": model})))

    async def models(self) -> list[Model]:
        """What is served."""
        return await self._send(calls.models())

    async def post(self, path: str, body: Mapping[str, Any] | bytes) -> Answer:
        """The answer of any route that takes JSON and gives JSON, as it came. `body`: fields, or JSON text.

        It may be sent twice, as with all methods that generate.
        """
        return await self._send(calls.post(path, body))

    async def aclose(self) -> None:
        """Close all connections. Open streams end with an error."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _fields(self, parameters: Mapping[str, Any], **own: Any) -> dict[str, Any]:
        return fields_of(parameters, self._settings.model, **own)

    async def _send(self, call: Call[T]) -> T:
        async def attempt() -> T:
            with transport_errors():
                response = await self._http.send(call.request.for_httpx(self._http))
            return call.result(response)

        return await self._retrying(attempt, repeatable=call.request.repeatable)

    async def _open(self, call: StreamCall[T]) -> AsyncStream[T]:
        """Returns when the first bytes are here: until then, all that fails can be tried again."""

        async def attempt() -> AsyncStream[T]:
            with transport_errors():
                response = await self._http.send(call.request.for_httpx(self._http), stream=True)
            try:
                with transport_errors():
                    if not response.is_success:
                        await response.aread()
                    check_status(response)
                    reader = call.reader_of(response)
                    pieces = response.aiter_bytes()
                    first = await anext(pieces, b"")
                reader.feed(first)
            except BaseException:
                await response.aclose()
                raise
            return AsyncStream(response, pieces, reader)

        return await self._retrying(attempt, repeatable=call.request.repeatable)

    async def _retrying(self, attempt: Callable[[], Awaitable[T]], *, repeatable: bool) -> T:
        attempts = Attempts(self._retry, repeatable=repeatable)
        while True:
            try:
                return await attempt()
            except ClientError as error:
                delay = attempts.delay_after(error)
            await asyncio.sleep(delay)
