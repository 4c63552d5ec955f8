"""Every knob of `headrace serve`, in frozen sections. Flags, YAML keys, variables and `--help` are made from these.

A field's name is its flag (`max_num_seqs` is `--max-num-seqs`) and its YAML key; the string below it is its help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headrace.config.engine import EngineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model, and how it is presented."""

    model: str = "smollm2"
    """A known name (`headrace models`), a folder, a .gguf file, or a Hub id."""
    served_model_name: tuple[str, ...] = ()
    """Names the model answers to; the first is the one in responses. Default: the model argument."""
    tokenizer: str | None = None
    """Take the tokenizer from this folder, file or Hub id instead of the model's own."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    chat_template: str | None = None
    """A Jinja file, or the template itself."""
    generation_config: str = "auto"
    """Default sampling values: 'auto' takes the model's generation_config.json, 'vllm' takes none, else a folder."""
    override_generation_config: dict[str, Any] = field(default_factory=dict)
    """JSON object laid over the generation config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What one request, and all of them together, may ask for."""

    max_num_queued_reqs: int | None = None
    """Sequences that may wait (n choices count as n); 503 beyond."""
    max_num_queued_tokens: int | None = None
    """Prompt tokens that may wait; 503 beyond."""
    max_logprobs: int = 20
    """Most alternatives per token; -1: no limit."""
    max_n_sequences: int = 16384
    """Most choices of one request. Variable: VLLM_MAX_N_SEQUENCES."""
    max_completion_prompts: int = 1024
    """Most prompts in one completion request. Variable: VLLM_MAX_COMPLETION_PROMPTS."""
    max_stop_strings: int = 16
    """Most stop strings of one request. Variable: VLLM_MAX_STOP_STRINGS."""
    max_num_bad_words: int = 128
    """Most bad words of one request. Variable: VLLM_MAX_NUM_BAD_WORDS."""
    chat_template_render_timeout: float = 30.0
    """Seconds a chat template may take. Variable: VLLM_CHAT_TEMPLATE_RENDER_TIMEOUT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """The socket and what stands in front of the routes."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    """A Unix domain socket instead of host and port."""
    api_key: tuple[str, ...] = ()
    """Any of these opens the guarded routes. Variable: VLLM_API_KEY (one key)."""
    root_path: str = ""
    """Prefix under which a proxy shows this server."""
    allowed_origins: tuple[str, ...] = ()
    """CORS; a JSON list or several values."""
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    ssl_keyfile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_ca_certs: Path | None = None
    ssl_cert_reqs: Literal[0, 1, 2] = 0
    """Client certificates: 0 none, 1 optional, 2 required."""
    ssl_ciphers: str | None = None
    enable_request_id_headers: bool = False
    """Answer with an X-Request-Id header."""
    disable_fastapi_docs: bool = False
    """Hide /docs, /redoc and /openapi.json."""
    timeout_keep_alive: int = 5
    """Seconds an idle connection is kept. Variable: VLLM_HTTP_TIMEOUT_KEEP_ALIVE."""
    shutdown_timeout: float = 30.0
    """Seconds running requests get to finish after SIGTERM or Ctrl-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """Choices in what the protocol families answer."""

    strict_requests: bool = False
    """Refuse request fields that nobody knows, instead of logging them once."""
    response_role: str = "assistant"
    default_chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """JSON object of template variables; a request's own win."""
    enable_tokenizer_info_endpoint: bool = False
    """Serve /tokenizer_info."""
    enable_prompt_tokens_details: bool = False
    """Report cached tokens in usage."""
    enable_force_include_usage: bool = False
    """Send usage on every stream."""
    enable_server_load_tracking: bool = False
    """Count running requests at /load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """What is written to standard error."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Variable: VLLM_LOGGING_LEVEL."""
    uvicorn_log_level: Literal["critical", "error", "warning", "info", "debug", "trace"] = "info"
    disable_uvicorn_access_log: bool = False
    disable_access_log_for_endpoints: tuple[str, ...] = ()
    """Paths left out of the access log; commas or several values."""
    enable_log_requests: bool = False
    """Log each request's parameters."""
    max_log_len: int | None = None
    """Most prompt characters or ids in a logged request."""
    disable_log_stats: bool = False
    """No periodic throughput line and no engine metrics."""
    log_stats_interval: float = 10.0
    """Seconds between throughput lines. Variable: VLLM_LOG_STATS_INTERVAL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """The whole tree, complete at birth and never changed."""

    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    seed: int = 0
    """Seed from which unseeded requests draw theirs."""
