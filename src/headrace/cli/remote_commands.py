"""The command lines of what calls a running server. What they do is imported when they do it."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from headrace.core.errors import ConfigError

Url = Annotated[str | None, Parameter(help="Where the server is [also HEADRACE_BASE_URL]", metavar="URL")]
Model = Annotated[str | None, Parameter(help="Default: what the server serves", metavar="NAME")]
ApiKey = Annotated[str | None, Parameter(help="Also HEADRACE_API_KEY, then OPENAI_API_KEY", metavar="KEY")]
MaxTokens = Annotated[int | None, Parameter(help="How long an answer may be", metavar="INT")]
Temperature = Annotated[float | None, Parameter(help="0 always takes the likeliest token", metavar="NUMBER")]


def add_remote_commands(app: App) -> None:
    app.command(_complete, name="complete")
    app.command(_chat, name="chat")
    app.command(_tokens, name="tokens")
    app.command(_embed, name="embed")


def _complete(
    prompt: Annotated[str | None, Parameter(help="The text that is to go on", metavar="PROMPT")] = None,
    /,
    *,
    from_stdin: Annotated[bool, Parameter(name="-", help="Read PROMPT from standard input", negative="")] = False,
    n: Annotated[int | None, Parameter(help="How many continuations", metavar="INT")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    stream: Annotated[bool | None, Parameter(help="Show the text as it comes [default: yes, but for JSON]")] = None,
    json: Annotated[bool, Parameter(help="Print the server's answer, or each chunk on a line", negative="")] = False,
    model: Model = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Continue a text on a running server."""
    from headrace.cli.complete import complete
    from headrace.cli.remote import Remote

    if from_stdin and prompt is not None:
        raise ConfigError("PROMPT and - exclude each other.")
    remote = Remote(url=url, model=model, api_key=api_key)
    parameters = _given(n=n, max_tokens=max_tokens, temperature=temperature)
    # Of a prompt left out it says the same as of -: a pipe is read, a terminal is not waited for.
    return complete(remote, prompt, parameters, stream=stream, as_json=json)


def _chat(
    *,
    system: Annotated[str | None, Parameter(help="How the model is to behave", metavar="TEXT")] = None,
    n: Annotated[int, Parameter(help="Answers to choose from [default: 1]", metavar="INT")] = 1,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    model: Model = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Talk with a model on a running server."""
    from headrace.cli.chat import chat
    from headrace.cli.remote import Remote

    remote = Remote(url=url, model=model, api_key=api_key)
    return chat(remote, system, _given(max_tokens=max_tokens, temperature=temperature), candidates=n)


def _tokens(
    message: Annotated[str | None, Parameter(help="What the model is to answer", metavar="MESSAGE")] = None,
    /,
    *,
    system: Annotated[str | None, Parameter(help="How the model is to behave", metavar="TEXT")] = None,
    raw: Annotated[bool, Parameter(help="Take MESSAGE as it is, without a chat template", negative="")] = False,
    tokenizer: Annotated[
        str | None, Parameter(help="Known name, folder, .gguf file or Hub id [default: the model's]", metavar="TEXT")
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    stream: Annotated[bool | None, Parameter(help="Show the answer as it comes [default: yes, but for JSON]")] = None,
    ids: Annotated[bool, Parameter(help="Print the answer's token ids, not its text", negative="")] = False,
    json: Annotated[bool, Parameter(help="Print the server's answer, or each chunk on a line", negative="")] = False,
    model: Model = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Ask a running server in token ids.

    The chat template and the tokenizer are applied here; the server sees no text.
    """
    from headrace.cli.remote import Remote
    from headrace.cli.tokens import Shown, tokens

    if ids and json:
        raise ConfigError("--ids and --json exclude each other: the JSON has the ids.")
    remote = Remote(url=url, model=model, api_key=api_key)
    shown = Shown.JSON if json else Shown.IDS if ids else Shown.TEXT
    parameters = _given(max_tokens=max_tokens, temperature=temperature)
    return tokens(
        remote, message, parameters, system=system, raw=raw, tokenizer_name=tokenizer, stream=stream, shown=shown
    )


def _embed(
    text: Annotated[str | None, Parameter(help="What is to become a vector", metavar="TEXT")] = None,
    /,
    *texts: Annotated[str, Parameter(show=False)],
    dimensions: Annotated[int | None, Parameter(help="Values of each vector to keep", metavar="INT")] = None,
    json: Annotated[bool, Parameter(help="Print the server's answer", negative="")] = False,
    model: Model = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Turn texts into vectors on a running server.

    Without TEXT, each line of standard input is one. A terminal is shown how
    alike they are; elsewhere each vector is a JSON array on a line.
    """
    from headrace.cli.embed import embed
    from headrace.cli.remote import Remote

    given = None if text is None else [text, *texts]
    return embed(Remote(url=url, model=model, api_key=api_key), given, _given(dimensions=dimensions), as_json=json)


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}
