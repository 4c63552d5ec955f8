"""What a server says of itself before it is measured: which model it has, and what its tokenizer makes of a text."""

from __future__ import annotations

import httpx

from headrace.bench.endpoints import Endpoint
from headrace.bench.errors import BenchError
from headrace.client import Client, ClientError, RetryPolicy, StatusError
from headrace.client.call import Call, Request, json_body, reading, transport_errors
from headrace.client.results import Result
from headrace.client.settings import Settings

_SECONDS = 30.0
_LIMITS = httpx.Limits(max_keepalive_connections=0)
"""A new connection for each of the few calls: minutes of load may lie between two of them."""

_DIALECTS = (("prompt", "add_special_tokens"), ("content", "add_special"))
"""What vLLM and Headrace call the text and its special tokens, and what llama.cpp does."""

_RETRY = RetryPolicy(max_retries=2, first_delay=0.2)


def served_model(settings: Settings, endpoint: Endpoint) -> str:
    """The name of the model that is served; of several, of the one that answers a request that names none, or else of
    the first.

    Raises a `ClientError`, and `BenchError` if there is none.
    """
    with Client(settings.base_url, settings.api_key, retry=_RETRY) as client:
        served = client.models()
        if not served:
            raise BenchError(f"{settings.base_url} serves no model.")
        if len(served) == 1:
            return served[0].id
        try:
            return _answering_model(client, endpoint) or served[0].id
        except StatusError:  # many servers insist on a name
            return served[0].id


def _answering_model(client: Client, endpoint: Endpoint) -> str:
    """What the answer to a request without a model says; "" if it does not."""
    if endpoint is Endpoint.EMBEDDINGS:
        return client.embed("the").model
    if endpoint is Endpoint.CHAT:
        return client.chat([{"role": "user", "content": "the"}], max_tokens=1).model
    return client.complete("the", max_tokens=1).model


class _Tokens(Result, frozen=True):
    tokens: list[int]


class ServerTokenizer:
    """A `Tokenizer`. `dialect`: how the server calls the two fields."""

    def __init__(self, settings: Settings, model: str, dialect: tuple[str, str]) -> None:
        self._model = model
        self._text, self._special = dialect
        self._http = httpx.Client(
            base_url=settings.base_url, headers=settings.http_headers(), timeout=_SECONDS, limits=_LIMITS
        )

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Raises a `ClientError`."""
        fields = {"model": self._model, self._text: text, self._special: add_special_tokens}
        call = Call(Request(method="POST", path="/tokenize", body=json_body(fields)), reading(_Tokens))
        with transport_errors():
            response = self._http.send(call.request.for_httpx(self._http))
        return call.result(response).tokens

    def close(self) -> None:
        self._http.close()


def server_tokenizer(settings: Settings, model: str) -> ServerTokenizer | None:
    """That of the server, if it has one that answers. To be closed."""
    for dialect in _DIALECTS:
        tokenizer = ServerTokenizer(settings, model, dialect)
        try:
            if tokenizer.encode("of the", add_special_tokens=False):
                return tokenizer
        except ClientError:
            pass  # many servers have no such route; whether anybody is there at all, a request will show
        tokenizer.close()
    return None
