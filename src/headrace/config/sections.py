"""Every knob of `headrace serve`, in frozen sections. Flags, YAML keys, variables and `--help` are made from these.

A field's name is its flag (`max_num_seqs` is `--max-num-seqs`), its YAML key and its variable
(`HEADRACE_MAX_NUM_SEQS`); the string below it is its help; what it may hold stands in `Annotated`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from headrace.config.engine import EngineConfig
from headrace.config.jobs import JobsConfig
from headrace.config.rules import (
    NOT_EMPTY,
    STARTS_WITH_SLASH,
    Alias,
    Commas,
    Size,
    Variable,
    above,
    at_least,
    between,
    check_fields,
)
from headrace.config.runpod import RunpodConfig
from headrace.config.structured import StructuredOutputsConfig, read_structured_outputs
from headrace.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model, and how it is presented."""

    model: Annotated[str, NOT_EMPTY] = "smollm2"
    """A known name (`headrace models`), a folder, a .gguf file, or a Hub id."""
    served_model_name: Annotated[tuple[str, ...], NOT_EMPTY] = ()
    """Names the model answers to; the first is the one in responses. Default: the model argument."""
    tokenizer: Annotated[str | None, NOT_EMPTY] = None
    """Take the tokenizer from this folder, file or Hub id instead of the model's own."""
    tokens_only: Annotated[bool, Alias("skip_tokenizer_init")] = False
    """Load no tokenizer and speak token ids only (/inference/v1/generate); routes that need text answer 403."""
    revision: Annotated[str | None, NOT_EMPTY] = None
    """Branch, tag or commit on the Hub."""
    chat_template: Annotated[str | None, NOT_EMPTY] = None
    """A Jinja file, the template itself, or a built-in one: chatml, hermes."""
    chat_template_content_format: Literal["auto", "string", "openai"] = "auto"
    """What the template takes message content to be: text, or a list of parts; auto: told from the template."""
    tool_call_parser: Annotated[str | None, NOT_EMPTY] = None
    """Format of the model's tool calls: hermes, llama3_json, mistral, pythonic, qwen3_coder, … or one of a plug-in."""
    tool_parser_plugin: str = ""
    """A Python file that defines TOOL_FORMATS, further formats of tool calls by name."""
    tool_strict_level: Literal["auto", "function", "parameter"] = "auto"
    """Calls under tool_choice auto: of strict tools constrained; all to the names, or to names and parameters."""
    structured_outputs_config: dict[str, Any] = field(default_factory=dict)
    """JSON object for all structured outputs: disable_any_whitespace, enable_in_reasoning, … (backend: any will do)."""
    reasoning_parser: Annotated[str | None, NOT_EMPTY] = None
    """Format of the model's reasoning: deepseek_r1, qwen3, mistral, granite, …; it is answered apart from the text."""
    generation_config: Annotated[str, NOT_EMPTY] = "auto"
    """Default sampling values: 'auto' takes the model's generation_config.json, 'vllm' takes none, else a folder."""
    override_generation_config: dict[str, Any] = field(default_factory=dict)
    """JSON object laid over the generation config."""

    def __post_init__(self) -> None:
        check_fields(self)
        for flag, text in (("--tokenizer", self.tokenizer), ("--chat-template", self.chat_template)):
            if self.tokens_only and text is not None:
                raise ConfigError(f"--tokens-only and {flag} exclude each other: no text is made without a tokenizer.")
        read_structured_outputs(self.structured_outputs_config)  # raises what is to be raised
        if self.tool_strict_level != "auto" and self.tool_call_parser is None:
            raise ConfigError("--tool-strict-level needs --tool-call-parser: the format of the calls to constrain.")

    @property
    def structured_outputs(self) -> StructuredOutputsConfig:
        return read_structured_outputs(self.structured_outputs_config)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What one request, and all of them together, may ask for."""

    max_num_queued_reqs: Annotated[int | None, at_least(0)] = None
    """Sequences that may wait (n choices count as n); 503 beyond."""
    max_num_queued_tokens: Annotated[int | None, Size(), at_least(0)] = None
    """Prompt tokens that may wait; 503 beyond."""
    max_logprobs: Annotated[int, at_least(0, or_minus_one="no limit")] = 20
    """Most alternatives per token; -1: no limit."""
    max_n_sequences: Annotated[int, at_least(1), Variable("VLLM_MAX_N_SEQUENCES")] = 16384
    """Most choices of one request."""
    max_completion_prompts: Annotated[int, at_least(1), Variable("VLLM_MAX_COMPLETION_PROMPTS")] = 1024
    """Most prompts in one completion request."""
    max_stop_strings: Annotated[int, at_least(0), Variable("VLLM_MAX_STOP_STRINGS")] = 16
    """Most stop strings of one request."""
    max_num_bad_words: Annotated[int, at_least(0), Variable("VLLM_MAX_NUM_BAD_WORDS")] = 128
    """Most bad words of one request."""
    chat_template_render_timeout: Annotated[float, above(0), Variable("VLLM_CHAT_TEMPLATE_RENDER_TIMEOUT")] = 30.0
    """Seconds a chat template may take."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """The socket and what stands in front of the routes."""

    host: Annotated[str, NOT_EMPTY] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every IPv4 interface."""
    port: Annotated[int, between(0, 65535)] = 8000
    """TCP port; 0 takes a free one."""
    uds: Path | None = None
    """A Unix domain socket instead of host and port."""
    api_key: Annotated[tuple[str, ...], NOT_EMPTY, Variable("VLLM_API_KEY")] = field(default=(), repr=False)
    """Any of these opens the guarded routes."""
    root_path: Annotated[str, STARTS_WITH_SLASH] = ""
    """Prefix under which a proxy shows this server."""
    allowed_origins: tuple[str, ...] = ()
    """CORS origins that may call; a JSON list or several values."""
    allowed_methods: tuple[str, ...] = ("*",)
    """CORS methods."""
    allowed_headers: tuple[str, ...] = ("*",)
    """CORS request headers."""
    allow_credentials: bool = False
    """CORS: let browsers send cookies and keys."""
    ssl_keyfile: Path | None = None
    """Private key (PEM); HTTPS when given with the certificate."""
    ssl_certfile: Path | None = None
    """Certificate (PEM)."""
    ssl_ca_certs: Path | None = None
    """Authorities that client certificates are checked against."""
    ssl_cert_reqs: Literal[0, 1, 2] = 0
    """Client certificates: 0 none, 1 optional, 2 required."""
    ssl_ciphers: Annotated[str | None, NOT_EMPTY] = None
    """OpenSSL cipher list."""
    enable_request_id_headers: bool = False
    """Answer with an X-Request-Id header."""
    disable_fastapi_docs: bool = False
    """Hide /docs, /redoc and /openapi.json."""
    timeout_keep_alive: Annotated[int, at_least(0), Variable("VLLM_HTTP_TIMEOUT_KEEP_ALIVE")] = 5
    """Seconds an idle connection is kept."""
    shutdown_timeout: Annotated[float, at_least(0)] = 30.0
    """Seconds running requests get to finish after SIGTERM or Ctrl-C."""

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            given, missing = ("keyfile", "certfile") if self.ssl_certfile is None else ("certfile", "keyfile")
            raise ConfigError(f"--ssl-{given} needs --ssl-{missing} as well.")
        if self.ssl_ca_certs is not None and self.ssl_certfile is None:
            raise ConfigError("--ssl-ca-certs needs --ssl-keyfile and --ssl-certfile as well.")
        if self.ssl_cert_reqs and self.ssl_ca_certs is None:
            raise ConfigError("--ssl-cert-reqs needs --ssl-ca-certs: the authorities to check clients against.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """Choices in what the protocol families answer."""

    strict_requests: bool = False
    """Refuse request fields that nobody knows, instead of logging them once."""
    response_role: Annotated[str, NOT_EMPTY] = "assistant"
    """Role of the messages in chat responses."""
    default_chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """JSON object of template variables; a request's own win."""
    trust_request_chat_template: bool = False
    """Take chat templates from requests; they are rendered in a process with bounded time and memory."""
    enable_auto_tool_choice: bool = False
    """Let the model decide whether to call tools; needs --tool-call-parser."""
    exclude_tools_when_tool_choice_none: bool = False
    """Show the model no tools when a request's tool_choice is none."""
    return_tokens_as_token_ids: bool = False
    """Show tokens in logprobs as token_id:<id>, unless a request says otherwise."""
    enable_tokenizer_info_endpoint: bool = False
    """Serve /tokenizer_info."""
    enable_prompt_tokens_details: bool = False
    """Report cached tokens in usage."""
    enable_force_include_usage: bool = False
    """Send usage on every stream."""
    enable_server_load_tracking: bool = False
    """Count running requests at /load."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """What is written to standard error."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], Variable("VLLM_LOGGING_LEVEL")] = (
        "INFO"
    )
    """Least severity of Headrace's own messages."""
    uvicorn_log_level: Literal["critical", "error", "warning", "info", "debug", "trace"] = "info"
    """Least severity of the HTTP server's messages."""
    disable_uvicorn_access_log: bool = False
    """No line per HTTP request."""
    disable_access_log_for_endpoints: Annotated[tuple[str, ...], Commas()] = ()
    """Paths left out of the access log; commas or several values."""
    enable_log_requests: bool = False
    """Log each request's parameters."""
    max_log_len: Annotated[int | None, at_least(0)] = None
    """Most prompt characters or ids in a logged request."""
    disable_log_stats: bool = False
    """No periodic throughput line and no engine metrics."""
    log_stats_interval: Annotated[float, above(0), Variable("VLLM_LOG_STATS_INTERVAL")] = 10.0
    """Seconds between throughput lines."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModelConfig:
    """One model of a server: what each has for itself. `lazy`: it is loaded when the first request asks for it."""

    model: ModelConfig
    engine: EngineConfig
    limits: LimitsConfig
    lazy: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may call it by; responses show the first."""
        return self.model.served_model_name or (self.model.model,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """The whole tree, complete at birth and never changed.

    With several `models`, those are served, and `model`, `engine` and `limits` are of no further meaning.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    runpod: RunpodConfig = field(default_factory=RunpodConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    seed: int = 0
    """Seed from which unseeded requests draw theirs."""
    isolate: bool = False
    """Give each of several models an engine process of its own."""
    models: tuple[ServedModelConfig, ...] = ()

    @property
    def served(self) -> tuple[ServedModelConfig, ...]:
        """The models to serve, at least one; the first of those that can do it answers requests that name none."""
        return self.models or (ServedModelConfig(model=self.model, engine=self.engine, limits=self.limits),)

    def __post_init__(self) -> None:
        check_fields(self)
        names = [name for served in self.models for name in served.names]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"models: {twice!r} is the name of two models; give one of them another `name`.")
        if self.api.enable_auto_tool_choice and all(served.model.tool_call_parser is None for served in self.served):
            raise ConfigError("--enable-auto-tool-choice needs --tool-call-parser: the format of the model's calls.")
