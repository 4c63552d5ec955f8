"""`Client`: one thread waits for one answer. `async_client.py` is its twin; what they say and read is in `calls.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

import httpx

from headrace.client import calls
from headrace.client.call import Call, StreamCall, check_status, transport_errors
from headrace.client.calls import Inputs, Prompt, Texts, fields_of
from headrace.client.errors import ClientError
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
from headrace.client.sync_jobs import Jobs

T = TypeVar("T")


class Stream(Generic[T]):
    """Chunks as they come. Leaving the `with` block, or `close`, hangs up; the server stops generating then.

    Iterating raises `ProtocolError` for a malformed chunk or an early end, `StatusError` for an error that the server
    puts into the stream, `TransportError` if the connection breaks.
    """

    def __init__(self, response: httpx.Response, pieces: Iterator[bytes], reader: StreamReader[T]) -> None:
        self._response = response
        self._pieces = pieces
        self._reader = reader
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            while (item := self._reader.take()) is None:
                if self._reader.at_end:
                    raise StopIteration
                with transport_errors():
                    piece = next(self._pieces, b"")
                self._reader.feed(piece)
        except BaseException:
            self.close()
            raise
        return item

    def close(self) -> None:
        self._closed = True
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Client:
    """Talks to a Headrace server, or to any other that speaks OpenAI's API. Threads may share one.

        with Client() as client:
            print(client.complete("The capital of France is", max_tokens=8).text)
            with client.chat([{"role": "user", "content": "Hello"}], stream=True) as stream:
                for chunk in stream:
                    print(chunk.text, end="")

    `base_url` (with `/v1` at its end or without), `api_key`: default to HEADRACE_BASE_URL and HEADRACE_API_KEY, then
    OPENAI_API_KEY. `model`: for requests that name none. `timeout`: seconds without a byte, an `httpx.Timeout`, or None
    to wait for ever; the default is 5 s to connect and 600 s for an answer to begin or go on. `retry`: what is sent
    again when. `transport`: carries the requests, if they do not go over TCP (`httpx.HTTPTransport(uds="…")`).

    Every method raises a `ClientError`. Parameters are sent as they are given, None is not sent.
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = Settings.of(base_url, api_key, model, headers)
        self._retry = retry or RetryPolicy()
        self._http = httpx.Client(
            base_url=self._settings.base_url,
            headers=self._settings.http_headers(),
            timeout=timeout,
            limits=LIMITS,
            transport=transport,
        )
        self.jobs = Jobs(self._send)
        """The jobs of the endpoint `default`."""

    @property
    def base_url(self) -> str:
        return self._settings.base_url

    @property
    def model(self) -> str | None:
        """For requests that name none."""
        return self._settings.model

    @overload
    def complete(
        self, prompt: Prompt, *, stream: Literal[False] = False, **parameters: Unpack[CompletionParameters]
    ) -> Completion: ...
    @overload
    def complete(
        self, prompt: Prompt, *, stream: Literal[True], **parameters: Unpack[CompletionParameters]
    ) -> Stream[Completion]: ...
    def complete(
        self, prompt: Prompt, *, stream: bool = False, **parameters: Unpack[CompletionParameters]
    ) -> Completion | Stream[Completion]:
        """Continue one prompt or several, each text or token ids. A stream's chunks hold what is new."""
        fields = self._fields(parameters, prompt=prompt)
        if stream:
            return self._open(calls.complete_stream(fields))
        return self._send(calls.complete(fields))

    @overload
    def chat(
        self, messages: Sequence[Message], *, stream: Literal[False] = False, **parameters: Unpack[ChatParameters]
    ) -> ChatCompletion: ...
    @overload
    def chat(
        self, messages: Sequence[Message], *, stream: Literal[True], **parameters: Unpack[ChatParameters]
    ) -> Stream[ChatChunk]: ...
    def chat(
        self, messages: Sequence[Message], *, stream: bool = False, **parameters: Unpack[ChatParameters]
    ) -> ChatCompletion | Stream[ChatChunk]:
        """The next message of a conversation."""
        fields = self._fields(parameters, messages=messages)
        if stream:
            return self._open(calls.chat_stream(fields))
        return self._send(calls.chat(fields))

    @overload
    def tokens(
        self,
        token_ids: Sequence[int],
        sampling_params: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        **parameters: Unpack[TokensParameters],
    ) -> TokensCompletion: ...
    @overload
    def tokens(
        self,
        token_ids: Sequence[int],
        sampling_params: SamplingParams | None = None,
        *,
        stream: Literal[True],
        **parameters: Unpack[TokensParameters],
    ) -> Stream[TokensCompletion]: ...
    def tokens(
        self,
        token_ids: Sequence[int],
        sampling_params: SamplingParams | None = None,
        *,
        stream: bool = False,
        **parameters: Unpack[TokensParameters],
    ) -> TokensCompletion | Stream[TokensCompletion]:
        """Token ids in, token ids out. Without `max_tokens` the answer may fill the context."""
        fields = self._fields(parameters, token_ids=token_ids, sampling_params=sampling_params or {})
        if stream:
            return self._open(calls.tokens_stream(fields))
        return self._send(calls.tokens(fields))

    @overload
    def legacy_generate(
        self, prompt: str, *, stream: Literal[False] = False, **sampling: Unpack[LegacySampling]
    ) -> list[str]: ...
    @overload
    def legacy_generate(
        self, prompt: str, *, stream: Literal[True], **sampling: Unpack[LegacySampling]
    ) -> Stream[list[str]]: ...
    def legacy_generate(
        self, prompt: str, *, stream: bool = False, **sampling: Unpack[LegacySampling]
    ) -> list[str] | Stream[list[str]]:
        """The texts of all candidates, prompt included; a stream repeats them whole each time that one has grown."""
        fields = {"prompt": prompt, **sampling}
        if stream:
            return self._open(calls.legacy_stream(fields))
        return self._send(calls.legacy_generate(fields))

    def embed(self, given: Inputs, **parameters: Unpack[EmbedParameters]) -> Embeddings:
        """A vector for each text or list of token ids; one for a conversation."""
        return self._send(calls.embed(given, self._fields(parameters)))

    def classify(self, given: Inputs, **parameters: Unpack[PoolingParameters]) -> Classification:
        """The probability of each class, for each text or list of token ids, or for a conversation."""
        return self._send(calls.classify(given, self._fields(parameters)))

    def score(self, text_1: Texts, text_2: Texts, **parameters: Unpack[PoolingParameters]) -> Scores:
        """How well texts match: one with each of several, or two lists pair by pair."""
        return self._send(calls.score(self._fields(parameters, text_1=text_1, text_2=text_2)))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        **parameters: Unpack[PoolingParameters],
    ) -> Ranking:
        """The documents in the order of their relevance; the first `top_n` of them, if that is given."""
        fields = self._fields(parameters, query=query, documents=documents, top_n=top_n)
        return self._send(calls.rerank(fields))

    def tokenize(self, given: str | Sequence[Message], **parameters: Unpack[TokenizeParameters]) -> Tokenized:
        """The token ids of a text, or of a conversation as the model's chat template renders it."""
        return self._send(calls.tokenize(given, self._fields(parameters)))

    def detokenize(self, token_ids: Sequence[int], *, model: str | None = None) -> str:
        return self._send(calls.detokenize(token_ids, self._fields({"model": model})))

    def models(self) -> list[Model]:
        """What is served."""
        return self._send(calls.models())

    def post(self, path: str, body: Mapping[str, Any] | bytes) -> Answer:
        """The answer of any route that takes JSON and gives JSON, as it came. `body`: fields, or JSON text.

        It may be sent twice, as with all methods that generate.
        """
        return self._send(calls.post(path, body))

    def close(self) -> None:
        """Close all connections. Open streams end with an error."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fields(self, parameters: Mapping[str, Any], **own: Any) -> dict[str, Any]:
        return fields_of(parameters, self._settings.model, **own)

    def _send(self, call: Call[T]) -> T:
        def attempt() -> T:
            with transport_errors():
                response = self._http.send(call.request.for_httpx(self._http))
            return call.result(response)

        return self._retrying(attempt, repeatable=call.request.repeatable)

    def _open(self, call: StreamCall[T]) -> Stream[T]:
        """Returns when the first bytes are here: until then, all that fails can be tried again."""

        def attempt() -> Stream[T]:
            with transport_errors():
                response = self._http.send(call.request.for_httpx(self._http), stream=True)
            try:
                with transport_errors():
                    if not response.is_success:
                        response.read()
                    check_status(response)
                    reader = call.reader_of(response)
                    pieces = response.iter_bytes()
                    first = next(pieces, b"")
                reader.feed(first)
            except BaseException:
                response.close()
                raise
            return Stream(response, pieces, reader)

        return self._retrying(attempt, repeatable=call.request.repeatable)

    def _retrying(self, attempt: Callable[[], T], *, repeatable: bool) -> T:
        attempts = Attempts(self._retry, repeatable=repeatable)
        while True:
            try:
                return attempt()
            except ClientError as error:
                delay = attempts.delay_after(error)
            time.sleep(delay)
