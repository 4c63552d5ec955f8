"""What a command line, a YAML file and the environment make of the configuration tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.load import load_config
from headrace.config.sections import ServeConfig
from headrace.core.errors import ConfigError

DEFAULTS = ServeConfig()


def load(*arguments: str, **environment: str) -> ServeConfig:
    return load_config(arguments, environment)


def refused(*arguments: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(arguments, environment)
    return caught.value.message


@pytest.fixture
def yaml_file(tmp_path: Path):
    def write(text: str, name: str = "serve.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_the_default_model_given_is_the_tree_of_defaults():
    assert load("smollm2") == DEFAULTS


class TestFlags:
    def test_dashes_and_underscores_are_equal(self):
        assert load("--max_num_seqs", "3").engine.max_num_seqs == 3
        assert load("--max-num-seqs=3").engine.max_num_seqs == 3

    def test_switches_have_a_twin(self):
        assert load("--no-enable-prefix-caching").engine.enable_prefix_caching is False
        assert load("--enable-request-id-headers").http.enable_request_id_headers is True
        assert load("--no_enable_prefix_caching").engine.enable_prefix_caching is False

    def test_the_last_of_a_repeated_flag_counts(self):
        assert load("--port", "80", "--port", "90").http.port == 90
        assert load("--enable-log-requests", "--no-enable-log-requests").logging.enable_log_requests is False

    def test_lists_take_several_values_and_grow(self):
        config = load("--api-key", "a", "b", "--served-model-name", "x", "y", "--api-key", "c")
        assert config.http.api_key == ("a", "b", "c")
        assert config.model.served_model_name == ("x", "y")

    @pytest.mark.parametrize("words", [('["https://a", "https://b"]',), ("https://a", "https://b")])
    def test_lists_may_be_json(self, words: tuple[str, ...]):
        assert load("--allowed-origins", *words).http.allowed_origins == ("https://a", "https://b")
        assert load("--allowed-origins", "[]").http.allowed_origins == ()

    def test_comma_lists(self):
        config = load("--disable-access-log-for-endpoints", "/health,/metrics", "/ping")
        assert config.logging.disable_access_log_for_endpoints == ("/health", "/metrics", "/ping")

    def test_json_objects_whole_or_dotted(self):
        whole = load("--override-generation-config", '{"temperature": 0.5, "eos_token_id": [1, 2]}')
        assert whole.model.override_generation_config == {"temperature": 0.5, "eos_token_id": [1, 2]}
        dotted = load(
            "--override-generation-config.temperature", "0.5", "--override_generation_config.eos_token_id", "[1, 2]"
        )
        assert dotted.model == whole.model
        nested = load("--default-chat-template-kwargs.a.b", "text", "--default-chat-template-kwargs.flag", "true")
        assert nested.api.default_chat_template_kwargs == {"a": {"b": "text"}, "flag": True}

    def test_dotted_keys_keep_their_spelling(self):
        assert load("--default-chat-template-kwargs.enable_thinking", "false").api.default_chat_template_kwargs == {
            "enable_thinking": False
        }

    @pytest.mark.parametrize(
        ("text", "tokens"),
        [("1k", 1000), ("1K", 1024), ("25.6k", 25600), ("1.5K", 1536), ("4096", 4096), ("auto", -1), ("-1", -1)],
    )
    def test_sizes(self, text: str, tokens: int):
        assert load("--max-model-len", text).engine.max_model_len == tokens

    def test_memory_sizes(self):
        assert load("--kv-cache-memory-bytes", "2G").engine.kv_cache_memory_bytes == 2 * 1024**3
        assert load("--kv-cache-memory-bytes", "2g").engine.kv_cache_memory_bytes == 2 * 10**9

    @pytest.mark.parametrize(("text", "dtype"), [("half", "float16"), ("float", "float32"), ("BFloat16", "bfloat16")])
    def test_dtype_spellings(self, text: str, dtype: str):
        assert load("--dtype", text).engine.dtype == dtype
        assert load("--kv-cache-dtype", text).engine.kv_cache_dtype == dtype

    def test_quantization_has_a_short_flag(self):
        assert load("-q", "int8") == load("--quantization", "int8")
        assert load("-q", "int8").engine.quantization == "int8"

    def test_levels_are_spelled_in_any_case(self):
        assert load("--log-level", "debug").logging.log_level == "DEBUG"

    def test_the_positional_model_wins(self, yaml_file):
        path = yaml_file("model: from-file")
        assert load("place", "--model", "flag", "--config", path).model.model == "place"
        assert load("--model", "flag", "--config", path).model.model == "flag"
        assert load("--config", path).model.model == "from-file"
        assert load("--config", yaml_file("port: 1", "other.yml")).model.model == "smollm2"


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("--max-num-seq", "3"), "unknown flag --max-num-seq; did you mean --max-num-seqs?"),
            (("--no-enable-prefix-cachin",), "did you mean --no-enable-prefix-caching?"),
            (("--no-port",), "unknown flag --no-port"),
            (("--bogus=1",), "unknown flag --bogus; see headrace serve --help."),
            (("a", "b"), "unexpected argument 'b'"),
            (("--uds",), "--uds needs a value"),
            (("--api-key",), "--api-key needs a value"),
            (("--api-key", ""), "--api-key must be a text that is not empty"),
            (("--port", "65536"), "--port must be from 0 to 65535, got 65536"),
            (("--port", "abc"), "--port must be an integer, got 'abc'"),
            (("--max-num-seqs", "0"), "--max-num-seqs must be at least 1, got 0"),
            (("--max-num-batched-tokens", "0"), "--max-num-batched-tokens must be at least 1"),
            (("--max-model-len", "0"), "--max-model-len must be at least 1, or -1"),
            (("--max-model-len", "1.5"), "--max-model-len must be a whole number"),
            (("--max-model-len", "many"), "--max-model-len must be a whole number"),
            (("--block-size", "12"), "--block-size must be a power of two from 1 to 256, got 12"),
            (("--block-size", "512"), "--block-size must be a power of two"),
            (("--dtype", "int8"), "--dtype must be one of auto, float32, float16, bfloat16, got 'int8'"),
            (("--shutdown-timeout", "nan"), "--shutdown-timeout must be at least 0"),
            (("--ssl-cert-reqs", "3"), "--ssl-cert-reqs must be one of 0, 1, 2"),
            (("--ssl-keyfile", "k.pem"), "--ssl-keyfile needs --ssl-certfile"),
            (("--ssl-certfile", "c.pem"), "--ssl-certfile needs --ssl-keyfile"),
            (("--ssl-ca-certs", "ca.pem"), "--ssl-ca-certs needs"),
            (("--root-path", "x"), "--root-path must be empty or start with '/'"),
            (("--override-generation-config", "3"), "--override-generation-config must be a JSON object"),
            (("--override-generation-config", "{"), "--override-generation-config must be a JSON object"),
            (("--allowed-origins", '["a", 1]'), "--allowed-origins must be a list of texts"),
            (("-q", "awq"), "--quantization must be one of int8, int4, got 'awq'"),
            (("--kv-cache-dtype", "fp8"), "--kv-cache-dtype must be one of auto, float32, float16, bfloat16, int8"),
            (("--kernels", "cuda"), "--kernels must be one of auto, native, reference"),
            (("--config", "a.yaml", "--config", "b.yaml"), "--config may be given only once"),
            (("--config", "serve.toml"), "--config must name a .yaml or .yml file"),
            (("--config", "/nowhere/serve.yaml"), "cannot read /nowhere/serve.yaml"),
        ],
    )
    def test_the_error_names_the_flag_and_what_is_allowed(self, arguments: tuple[str, ...], text: str):
        assert text in refused(*arguments)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("--enable-lora",), "--enable-lora is not implemented yet."),
            (("--no-enable-chunked-prefill",), "--no-enable-chunked-prefill is not implemented yet."),
            (("-tp", "2"), "--tensor-parallel-size: 2 is not implemented yet, only 1 is."),
            (("--lora-modules", "a=b", "c=d"), "--lora-modules is not implemented yet."),
            (("--gpu_memory_utilization", "0.9"), "--gpu-memory-utilization is not implemented yet."),
        ],
    )
    def test_known_flags_that_do_nothing_are_refused_by_name(self, arguments: tuple[str, ...], text: str):
        assert text in refused(*arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--runner", "auto", "--convert=auto", "--task", "auto"),
            ("--enable-chunked-prefill",),
            ("--no-enable-lora",),
            ("-tp", "1", "-pp", "1", "-dp", "1"),
            ("--load-format", "auto", "--hf-overrides", "{}"),
        ],
    )
    def test_values_that_change_nothing_are_accepted(self, arguments: tuple[str, ...]):
        assert load("smollm2", *arguments) == DEFAULTS

    def test_keys_do_not_show_when_the_configuration_is_printed(self):
        assert "secret" not in repr(load("--api-key", "secret"))


class TestYaml:
    def test_the_file_of_the_serving_guide(self, yaml_file):
        config = load("--config", yaml_file('host: "127.0.0.1"\nport: 6379\nuvicorn-log-level: "info"\n'))
        assert (config.http.host, config.http.port, config.logging.uvicorn_log_level) == ("127.0.0.1", 6379, "info")

    def test_keys_with_dashes_or_underscores_and_all_kinds_of_values(self, yaml_file):
        path = yaml_file(
            """
            max_num_seqs: 8
            max-model-len: 1k
            enable-prefix-caching: false
            served-model-name: [a, b]
            api-key: only
            allowed-origins: '["*"]'
            allowed-methods: ["GET", "POST"]
            override-generation-config: {temperature: 0.5}
            default-chat-template-kwargs: '{"x": 1}'
            shutdown-timeout: 5
            uds:
            dtype: half
            """
        )
        config = load("--config", path)
        assert config.engine.max_num_seqs == 8
        assert config.engine.max_model_len == 1000
        assert config.engine.enable_prefix_caching is False
        assert config.engine.dtype == "float16"
        assert config.model.served_model_name == ("a", "b")
        assert config.http.api_key == ("only",)
        assert config.http.allowed_origins == ("*",)
        assert config.http.allowed_methods == ("GET", "POST")
        assert config.http.uds is None
        assert config.model.override_generation_config == {"temperature": 0.5}
        assert config.api.default_chat_template_kwargs == {"x": 1}
        assert config.http.shutdown_timeout == 5.0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("max-num-seq: 3", "unknown key 'max-num-seq' in {path}; did you mean max-num-seqs?"),
            ("port: 70000", "'port' in {path} must be from 0 to 65535, got 70000"),
            ("port: null", "'port' in {path} must not be empty"),
            ("port: true", "'port' in {path} must be an integer, got True"),
            ("revision: 1234", "'revision' in {path} must be a text; put it in quotes"),
            ("api-key: [a, 1]", "'api-key' in {path} must be a list of texts, got 1"),
            ("enable-lora: true", "'enable-lora' in {path} is not implemented yet"),
            ("tensor-parallel-size: 2", "'tensor-parallel-size' in {path}: 2 is not implemented yet"),
            ("port: 1\nport_: 2", "unknown key 'port_'"),
            ("max-num-seqs: 1\nmax_num_seqs: 2", "'max_num_seqs' stands twice"),
            ("config: other.yaml", "unknown key 'config'"),
            ("- port", "must hold `flag: value` pairs"),
            ("port: [", "is not YAML"),
        ],
    )
    def test_errors_name_the_key_and_the_file(self, yaml_file, text: str, message: str):
        path = yaml_file(text)
        assert message.format(path=path) in refused("--config", path)

    def test_an_empty_file_changes_nothing(self, yaml_file):
        assert load("smollm2", "--config", yaml_file("# nothing yet\n")) == DEFAULTS

    def test_harmless_values_are_accepted(self, yaml_file):
        path = yaml_file("tensor-parallel-size: 1\nenable-chunked-prefill: true\ntrust-remote-code: false")
        assert load("smollm2", "--config", path) == DEFAULTS


class TestEnvironment:
    def test_every_field_has_a_variable(self):
        config = load(
            HEADRACE_MAX_NUM_SEQS="7",
            HEADRACE_ENABLE_PREFIX_CACHING="0",
            HEADRACE_SERVED_MODEL_NAME='["a", "b"]',
            HEADRACE_OVERRIDE_GENERATION_CONFIG='{"top_k": 5}',
            HEADRACE_SEED="9",
        )
        assert config.engine.max_num_seqs == 7
        assert config.engine.enable_prefix_caching is False
        assert config.model.served_model_name == ("a", "b")
        assert config.model.override_generation_config == {"top_k": 5}
        assert config.seed == 9

    def test_the_variables_of_the_contract(self):
        config = load(
            VLLM_API_KEY="key,with,commas",
            VLLM_LOGGING_LEVEL="warning",
            VLLM_LOG_STATS_INTERVAL="2.5",
            VLLM_HTTP_TIMEOUT_KEEP_ALIVE="9",
            VLLM_MAX_N_SEQUENCES="10",
            VLLM_MAX_COMPLETION_PROMPTS="11",
            VLLM_MAX_STOP_STRINGS="12",
            VLLM_MAX_NUM_BAD_WORDS="13",
            VLLM_CHAT_TEMPLATE_RENDER_TIMEOUT="14",
        )
        assert config.http.api_key == ("key,with,commas",)
        assert config.logging.log_level == "WARNING"
        assert config.logging.log_stats_interval == 2.5
        assert config.http.timeout_keep_alive == 9
        limits = config.limits
        assert (limits.max_n_sequences, limits.max_completion_prompts) == (10, 11)
        assert (limits.max_stop_strings, limits.max_num_bad_words) == (12, 13)
        assert limits.chat_template_render_timeout == 14.0

    def test_our_own_name_is_stronger_and_nothing_is_unset(self):
        assert load(VLLM_API_KEY="theirs", HEADRACE_API_KEY="ours").http.api_key == ("ours",)
        assert load(VLLM_API_KEY="theirs", HEADRACE_API_KEY="").http.api_key == ("theirs",)

    def test_errors_name_the_variable(self):
        assert "HEADRACE_PORT must be from 0 to 65535" in refused(HEADRACE_PORT="-1")
        assert "VLLM_LOGGING_LEVEL must be one of" in refused(VLLM_LOGGING_LEVEL="loud")
        assert "HEADRACE_ENABLE_LOG_REQUESTS must be true or false" in refused(HEADRACE_ENABLE_LOG_REQUESTS="maybe")


def test_command_line_beats_yaml_beats_environment(yaml_file):
    path = yaml_file("port: 2\nhost: yaml.example\napi-key: yaml")
    config = load("--config", path, "--port", "1", HEADRACE_PORT="3", HEADRACE_HOST="env", HEADRACE_SEED="4")
    assert config.http.port == 1
    assert config.http.host == "yaml.example"
    assert config.http.api_key == ("yaml",)
    assert config.seed == 4
