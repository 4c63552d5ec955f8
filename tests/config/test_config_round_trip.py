"""One configuration, said on the command line, in YAML and in the environment."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config.knobs import Knob, all_knobs, build
from headrace.config.load import load_config
from headrace.config.runpod import OPERATIONS

WORDS = st.text(string.ascii_letters + string.digits + "/._*é", min_size=1, max_size=8)
JSON = st.dictionaries(WORDS.filter(lambda key: "." not in key), st.integers() | WORDS | st.lists(st.booleans()))
LIMITS = st.dictionaries(st.sampled_from(OPERATIONS), st.integers(1, 1000))
OF_THEIR_OWN = {
    "block_size": st.sampled_from([1, 2, 64, 256]),
    "port": st.integers(0, 65535),
    "max_model_len": st.integers(1, 10**9) | st.just(-1),
    "root_path": WORDS.map(lambda word: f"/{word}"),
    "job_execution_timeout": st.floats(5, 1e5),
    "job_ttl": st.floats(10, 1e5),
    "job_lease": st.floats(1, 1e5),
    "job_rate_limits": LIMITS,
    "job_concurrency_limits": LIMITS,
}
"""Values of the fields that take less than their kind does."""


def values_of(knob: Knob) -> st.SearchStrategy[Any]:
    rules = knob.rules
    if knob.name in OF_THEIR_OWN:
        return OF_THEIR_OWN[knob.name]
    if rules.choices:
        return st.sampled_from(rules.choices)
    if rules.is_list:
        return st.lists(WORDS, min_size=1, max_size=3).map(tuple)
    if rules.is_mapping:
        return JSON
    if rules.kind is bool:
        return st.booleans()
    if rules.kind is int:
        return st.integers(1, 10**6)
    if rules.kind is float:
        return st.floats(0.001, 1e6)
    if rules.kind is Path:
        return WORDS.map(Path)
    return WORDS


ENTANGLED = {
    *("jobs_url", "tokens_only", "task", "runner", "convert", "enable_auto_tool_choice", "tool_strict_level"),
    *("pooler_config", "structured_outputs_config"),
}
INDEPENDENT = {
    name: knob for name, knob in all_knobs().items() if not name.startswith("ssl_") and name not in ENTANGLED
}
"""The TLS fields need each other, --jobs-url goes without --jobs-dir, --tokens-only without what is for text, --task
without --runner and --convert, choices about tools only with --tool-call-parser; two objects have keys of their own;
everything else may be set alone."""

CHOSEN = st.fixed_dictionaries(
    {"model": WORDS},  # where it is not given, a second model is served as well
    optional={name: values_of(knob) for name, knob in INDEPENDENT.items() if name != "model"},
)


def as_flags(values: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        knob = all_knobs()[name]
        match value:
            case bool():
                words.append(knob.flag if value else knob.flag.replace("--", "--no-"))
            case tuple():
                words += [knob.flag, *value]
            case dict():
                words += [knob.flag, json.dumps(value)]
            case _:
                words += [knob.flag, str(value)]
    return words


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


@settings(max_examples=20, deadline=None)
@given(CHOSEN)
def test_flags_yaml_and_variables_say_the_same(tmp_path_factory, values: dict[str, Any]):
    expected = build(values)
    assert load_config(as_flags(values), {}) == expected

    path = tmp_path_factory.mktemp("config") / "serve.yaml"
    path.write_text(yaml.safe_dump({name.replace("_", "-"): plain(value) for name, value in values.items()}))
    assert load_config(["--config", str(path)], {}) == expected

    environment = {
        f"HEADRACE_{name.upper()}": json.dumps(plain(value)) if isinstance(value, tuple | dict) else str(value)
        for name, value in values.items()
    }
    assert load_config([], environment) == expected
