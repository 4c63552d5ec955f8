"""Sections check themselves, whoever makes them; and nothing about the tree is written down twice."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config.engine import EngineConfig
from headrace.config.flag_table import render_flag_table
from headrace.config.knobs import all_knobs
from headrace.config.sections import HttpConfig, LimitsConfig, ModelConfig, ServeConfig
from headrace.config.unimplemented import UNIMPLEMENTED
from headrace.core.errors import ConfigError

CONTRACT_FLAGS = """
    allow_credentials allowed_headers allowed_local_media_path allowed_media_domains allowed_methods
    allowed_origins api_key api_server_count block_size chat_template chat_template_content_format convert
    data_parallel_size default_chat_template_kwargs disable_access_log_for_endpoints disable_fastapi_docs
    disable_log_stats disable_uvicorn_access_log download_dir dtype enable_auto_tool_choice
    enable_chunked_prefill enable_force_include_usage enable_log_outputs enable_log_requests enable_lora
    enable_mm_embeds enable_per_request_metrics enable_prefix_caching enable_prompt_embeds
    enable_prompt_tokens_details enable_request_id_headers enable_scale_out enable_server_load_tracking
    enable_ssl_refresh enable_tokenizer_info_endpoint enforce_eager exclude_tools_when_tool_choice_none
    fingerprint_mode fingerprint_value generation_config gpu_memory_utilization h11_max_header_count
    h11_max_incomplete_event_size hf_overrides host interleave_mm_strings kv_cache_dtype limit_mm_per_prompt
    load_format log_error_stack log_level logprobs_mode lora_modules max_cpu_loras max_log_len max_logprobs
    max_lora_rank max_loras max_model_len max_num_batched_tokens max_num_queued_reqs max_num_queued_tokens
    max_num_seqs media_io_kwargs middleware mm_processor_cache_gb mm_processor_kwargs model otlp_traces_endpoint
    override_generation_config pipeline_parallel_size pooler_config port quantization reasoning_parser
    response_role return_tokens_as_token_ids revision root_path runner scheduling_policy seed served_model_name
    show_hidden_metrics_for_version shutdown_timeout sse_keep_alive_interval ssl_ca_certs ssl_cert_reqs
    ssl_certfile ssl_ciphers ssl_keyfile stream_interval structured_outputs_config task tensor_parallel_size
    tokenizer tokenizer_mode tokens_only tool_call_parser tool_parser_plugin tool_strict_level
    trust_remote_code trust_request_chat_template trust_request_mm_kwargs uds uvicorn_log_level
"""
"""The command-line table of the wire contract."""


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: EngineConfig(max_num_seqs=0), "max_num_seqs must be at least 1, got 0"),
        (lambda: EngineConfig(max_num_seqs="8"), "max_num_seqs must be an integer, got '8'"),
        (lambda: EngineConfig(max_num_seqs=True), "max_num_seqs must be an integer"),
        (lambda: EngineConfig(dtype="int4"), "dtype must be one of"),
        (lambda: EngineConfig(threads=0), "threads must be at least 1"),
        (lambda: LimitsConfig(max_logprobs=-2), "max_logprobs must be at least 0, or -1"),
        (lambda: HttpConfig(api_key="key"), "api_key must be a list of texts"),
        (lambda: HttpConfig(ssl_keyfile=Path("k"), ssl_certfile=Path("c"), ssl_cert_reqs=2), "needs --ssl-ca-certs"),
        (lambda: ModelConfig(override_generation_config=[]), "override_generation_config must be a JSON object"),
        (lambda: ServeConfig(seed=1.5), "seed must be an integer"),
    ],
)
def test_a_section_that_makes_no_sense_cannot_be_made(make, text: str):
    with pytest.raises(ConfigError, match=re.escape(text)):
        make()


def test_replacing_a_field_checks_again():
    with pytest.raises(ConfigError, match="block_size"):
        dataclasses.replace(EngineConfig(), block_size=3)


def test_every_field_has_help_and_no_flag_is_both_served_and_refused():
    assert [name for name, knob in all_knobs().items() if not knob.help] == []
    assert set(all_knobs()) & set(UNIMPLEMENTED) == set()


def test_every_flag_of_the_contract_is_known():
    assert [name for name in CONTRACT_FLAGS.split() if name not in all_knobs() and name not in UNIMPLEMENTED] == []


def test_the_flag_table_has_a_row_for_every_flag():
    table = render_flag_table()
    flags = set(re.findall(r"^\| `--(?:\[no-\])?([a-z0-9-]+)", table, flags=re.MULTILINE))
    assert flags == {name.replace("_", "-") for name in all_knobs()}
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in table.splitlines() if row.startswith("| `"))


def test_reading_the_configuration_loads_nothing_heavy():
    code = (
        "import sys; from headrace.config.load import load_config; load_config(['m', '--port', '1'], {});"
        "print([name for name in ('torch', 'fastapi', 'numpy', 'transformers', 'uvicorn') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
