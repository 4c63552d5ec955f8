"""`headrace tokens`: a message rendered and tokenized here, answered in token ids by a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

import msgspec

from headrace.cli.remote import EXIT_BROKEN_PIPE, Remote, drop_output, text_from_stdin
from headrace.cli.remote import shown as fit_for_terminal
from headrace.client import Client, Model, TokensCompletion
from headrace.client.parameters import SamplingParams
from headrace.core.errors import BadRequest, ConfigError
from headrace.hub import KNOWN, open_checkpoint
from headrace.hub.names import is_hub_id
from headrace.hub.templates import template_of_folder
from headrace.text import ChatTemplate, IncrementalDecoder, Tokenizer
from headrace.text.folder_tokenizer import tokenizer_from_folder


class Shown(Enum):
    """What is printed of an answer."""

    TEXT = auto()
    IDS = auto()
    JSON = auto()


@dataclass(frozen=True, slots=True)
class ModelText:
    """The client's side of a model."""

    tokenizer: Tokenizer
    template: ChatTemplate | None

    def prompt_ids(self, message: str, system: str | None, *, raw: bool) -> list[int]:
        """Raises `ConfigError` if there is no template, or it refuses the conversation."""
        if raw:
            return self.tokenizer.encode(message)
        if self.template is None:
            raise ConfigError("this model brings no chat template. --raw sends the message as it is.")
        turns = [] if system is None else [("system", system)]
        parts = self.template.content_format == "openai"
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if parts else text}
            for role, text in [*turns, ("user", message)]
        ]
        try:
            return self.tokenizer.encode(self.template.render(messages), add_special_tokens=False)
        except BadRequest as refusal:
            raise ConfigError(refusal.message) from None


def tokens(
    remote: Remote,
    message: str | None,
    parameters: Mapping[str, Any],
    *,
    system: str | None,
    raw: bool,
    tokenizer_name: str | None,
    stream: bool | None,
    shown: Shown,
) -> int:
    """Print the answer to `message`; None is standard input. `stream` None: streamed, unless it is JSON.

    Raises `ConfigError`, `RemoteFailed`, and `StartupError` for a tokenizer that cannot be loaded.
    """
    if raw and system is not None:
        raise ConfigError("--raw and --system exclude each other.")
    given = text_from_stdin("MESSAGE") if message is None else message
    streamed = stream if stream is not None else shown is not Shown.JSON
    with remote.connection() as client:
        model = _served(client)
        text = _load_text(tokenizer_name or _root_of(model))
        prompt_ids = text.prompt_ids(given, system, raw=raw)
        sampling = cast(SamplingParams, {**parameters, "detokenize": False})
        answers = _answers(client, model.id, prompt_ids, sampling, streamed=streamed)
        try:
            _print(answers, text.tokenizer.decoder(prompt_ids), shown)
            sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
            return EXIT_BROKEN_PIPE
    return 0


def _answers(
    client: Client, model: str, prompt_ids: list[int], sampling: SamplingParams, *, streamed: bool
) -> Iterator[TokensCompletion]:
    """The whole answer, or its chunks."""
    if not streamed:
        yield client.tokens(prompt_ids, sampling, model=model, return_token_ids=True)
        return
    with client.tokens(prompt_ids, sampling, stream=True, model=model, return_token_ids=True) as chunks:
        yield from chunks


def _print(answers: Iterator[TokensCompletion], decoder: IncrementalDecoder, shown: Shown) -> None:
    terminal = sys.stdout.isatty()
    separator = ""
    for answer in answers:
        text = decoder.push(answer.token_ids)
        match shown:
            case Shown.JSON:
                print(msgspec.json.encode(_with_text(answer, text)).decode(), flush=True)
            case Shown.IDS:
                for token_id in answer.token_ids:
                    print(f"{separator}{token_id}", end="", flush=True)
                    separator = " "
            case Shown.TEXT:
                print(fit_for_terminal(text) if terminal else text, end="", flush=True)
    if shown is Shown.TEXT:
        print(decoder.finish())
    elif shown is Shown.IDS:
        print()


def _with_text(answer: TokensCompletion, text: str) -> TokensCompletion:
    choices = [msgspec.structs.replace(choice, text=text) for choice in answer.choices[:1]]
    return msgspec.structs.replace(answer, choices=choices)


def _served(client: Client) -> Model:
    """The model that is asked: the one that the user names, else the first. Raises `ConfigError`."""
    served = client.models()
    for model in served:
        if client.model in (None, model.id):
            return model
    names = ", ".join(model.id for model in served)
    raise ConfigError(f"the server serves no {client.model or 'model'}{'; it serves ' + names if names else ''}.")


def _root_of(model: Model) -> str:
    """Where the served model says it comes from, if that is on this machine too. Raises `ConfigError`."""
    root = model.root
    if root is None:
        raise ConfigError(f"the server does not say where {model.id} comes from. Name its tokenizer with --tokenizer.")
    if root in KNOWN or Path(root).exists():
        return root
    if is_hub_id(root) and (folder := _cached_folder(root)) is not None:
        return str(folder)
    raise ConfigError(
        f"the tokenizer of {root}, which is served, is not on this machine. Name it with --tokenizer: a folder with "
        "its tokenizer.json, a .gguf file, or a Hub id."
    )


def _cached_folder(hub_id: str) -> Path | None:
    """The folder of what the Hub's cache has of a repository, if its tokenizer is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id.partition(":")[0], "tokenizer.json")
    return Path(found).parent if isinstance(found, str) else None


def _load_text(name: str) -> ModelText:
    """Of a folder, the tokenizer alone is needed. Raises `StartupError`."""
    path = Path(name).expanduser()
    if name not in KNOWN and (path / "tokenizer.json").is_file():
        tokenizer = Tokenizer(tokenizer_from_folder(path))
        template = template_of_folder(path)
    else:
        checkpoint = open_checkpoint(name)
        tokenizer = Tokenizer.load(checkpoint)
        template = checkpoint.chat_template
    return ModelText(tokenizer, None if template is None else ChatTemplate(template, tokenizer.special_tokens))
