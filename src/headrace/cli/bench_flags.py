"""The flags of `headrace bench`, by what they are about. The text below a field is its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

_SERVER = Group("Server", sort_key=1)
_LOAD = Group("Load", sort_key=2)
_PROMPTS = Group("Prompts and answers", sort_key=3)
_RESULT = Group("Result", sort_key=4)


@Parameter(name="*", group=_SERVER)
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlags:
    """Any server that speaks OpenAI's API."""

    url: Annotated[str | None, Parameter(metavar="URL")] = None
    """Where it is [default: http://127.0.0.1:8000; also HEADRACE_BASE_URL]"""
    model: Annotated[str | None, Parameter(metavar="NAME")] = None
    """Default: what the server serves; of several models, the first that has the endpoint"""
    api_key: Annotated[str | None, Parameter(metavar="KEY")] = field(default=None, repr=False)
    """Also HEADRACE_API_KEY, then OPENAI_API_KEY"""
    endpoint: Annotated[
        Literal["completions", "chat", "embeddings"], Parameter(metavar="CHOICE", show_choices=False)
    ] = "completions"
    """completions/chat/embeddings [default: completions]"""
    timeout: Annotated[float, Parameter(metavar="SECONDS")] = 600.0
    """For a whole answer [default: 600]"""


@Parameter(name="*", group=_LOAD)
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFlags:
    """How much is sent when. Several levels make a sweep."""

    concurrency: Annotated[
        tuple[int, ...],
        Parameter(name=["--concurrency", "--max-concurrency"], metavar="INT ...", consume_multiple=True, negative=""),
    ] = ()
    """Clients that each send their next request when the last has ended; with --rate, a limit [default: 1 8 32]"""
    rate: Annotated[
        tuple[str, ...],
        Parameter(name=["--rate", "--request-rate"], metavar="RATE ...", consume_multiple=True, negative=""),
    ] = ()
    """Requests that arrive a second, whether or not the ones before have ended; 1..16 is a ramp, inf is all at once"""
    burstiness: Annotated[float, Parameter(metavar="NUMBER")] = 1.0
    """Shape of the gaps' gamma distribution: 1 is a Poisson process, less are bursts, more is even [default: 1]"""
    ramp: Annotated[Literal["linear", "exponential"], Parameter(metavar="CHOICE")] = "linear"
    """How a ramp grows: linear/exponential [default: linear]"""
    requests: Annotated[int | None, Parameter(name=["--requests", "--num-prompts"], metavar="INT")] = None
    """At each level [default: 3 for each client, or 10 seconds of arrivals]"""
    warmup: Annotated[int, Parameter(name=["--warmup", "--num-warmups"], metavar="INT")] = 2
    """Requests before the first level, which do not count [default: 2]"""


@Parameter(name="*", group=_PROMPTS)
@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFlags:
    """What is sent, and how long the answers are to be."""

    dataset: Annotated[
        Literal["random", "shared-prefix", "file"] | None,
        Parameter(name=["--dataset", "--dataset-name"], metavar="CHOICE", show_choices=False),
    ] = None
    """random/shared-prefix/file [default: file with --file, else random]"""
    file: Annotated[Path | None, Parameter(name=["--file", "--dataset-path"], metavar="PATH")] = None
    """Prompts: lines of text, or JSON (lines or one list) of prompt, messages, or ShareGPT's conversations"""
    prompt_tokens: Annotated[int, Parameter(name=["--prompt-tokens", "--random-input-len"], metavar="INT")] = 128
    """Length of a random prompt, without its shared prefix [default: 128]"""
    output_tokens: Annotated[int | None, Parameter(name=["--output-tokens", "--random-output-len"], metavar="INT")] = (
        None
    )
    """Length of an answer [default: what the file says, else 64]"""
    range_ratio: Annotated[float, Parameter(name=["--range-ratio", "--random-range-ratio"], metavar="NUMBER")] = 0.0
    """Draw the lengths evenly from 1 - NUMBER to 1 + NUMBER times these [default: 0]"""
    prefix_tokens: Annotated[int, Parameter(metavar="INT")] = 256
    """Length of a shared prefix [default: 256]"""
    prefixes: Annotated[int, Parameter(metavar="INT")] = 4
    """Different prefixes, taken in turn [default: 4]"""
    form: Annotated[Literal["auto", "ids", "text"], Parameter(metavar="CHOICE", show_choices=False)] = "auto"
    """What a random prompt is sent as: ids/text [default: ids for completions, if there is a tokenizer, else text]"""
    tokenizer: Annotated[str | None, Parameter(metavar="NAME")] = None
    """A known name, folder, .gguf file or Hub id [default: the server's /tokenize]"""
    seed: Annotated[int, Parameter(metavar="INT")] = 0
    """The same seed gives the same prompts and arrivals [default: 0]"""
    ignore_eos: bool = True
    """Let every answer have the length that is asked for [default: on]"""
    temperature: Annotated[float | None, Parameter(metavar="NUMBER")] = None
    """Default: the server's"""
    extra_body: Annotated[str | None, Parameter(metavar="JSON", allow_leading_hyphen=True)] = None
    """Fields for every request; a null takes one out"""


@Parameter(name="*", group=_RESULT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFlags:
    """What becomes of the figures."""

    goodput: Annotated[tuple[str, ...], Parameter(metavar="NAME:MS ...", consume_multiple=True, negative="")] = ()
    """Count requests that stay within these, such as ttft:500 tpot:50 e2el:5000"""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print JSON instead of a table"""
    out: Annotated[Path | None, Parameter(metavar="PATH")] = None
    """Write JSON to this file as well"""
    plot: Annotated[Path | None, Parameter(metavar="FILE.svg")] = None
    """Draw latency and throughput against load"""


_OFFLINE = Group("Batches", sort_key=1)
_PROMPT_NAMES, _OUTPUT_NAMES = ["--prompt-tokens", "--input-len"], ["--output-tokens", "--output-len"]


@Parameter(name="*", group=_OFFLINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFlags:
    batch_size: Annotated[int, Parameter(metavar="INT")] = 8
    """Requests at a time [default: 8]"""
    prompt_tokens: Annotated[int, Parameter(name=_PROMPT_NAMES, metavar="INT")] = 32
    """Length of a prompt [default: 32]"""
    output_tokens: Annotated[int, Parameter(name=_OUTPUT_NAMES, metavar="INT")] = 128
    """Length of an answer [default: 128]"""
    iterations: Annotated[int, Parameter(name=["--iterations", "--num-iters"], metavar="INT")] = 10
    """Batches, one after the other [default: 10]"""
    warmup: Annotated[int, Parameter(name=["--warmup", "--num-iters-warmup"], metavar="INT")] = 2
    """Batches before that do not count [default: 2]"""
    seed: Annotated[int, Parameter(metavar="INT")] = 0
    """The same seed gives the same prompts [default: 0]"""


@Parameter(name="*", group=_OFFLINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputFlags:
    requests: Annotated[int, Parameter(name=["--requests", "--num-prompts"], metavar="INT")] = 64
    """All at once [default: 64]"""
    prompt_tokens: Annotated[int, Parameter(name=_PROMPT_NAMES, metavar="INT")] = 128
    """Length of a prompt [default: 128]"""
    output_tokens: Annotated[int, Parameter(name=_OUTPUT_NAMES, metavar="INT")] = 64
    """Length of an answer [default: 64]"""
    range_ratio: Annotated[float, Parameter(metavar="NUMBER")] = 0.0
    """Draw the lengths evenly from 1 - NUMBER to 1 + NUMBER times these [default: 0]"""
    seed: Annotated[int, Parameter(metavar="INT")] = 0
    """The same seed gives the same prompts [default: 0]"""


@Parameter(name="*", group=_RESULT)
@dataclass(frozen=True, slots=True, kw_only=True)
class JsonFlags:
    """How the figures are shown."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print JSON instead of a table"""
    out: Annotated[Path | None, Parameter(metavar="PATH")] = None
    """Write JSON to this file as well"""
