from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.numpy import save_file

from headrace.core.errors import BadCheckpoint, ConfigError, ModelNotFound
from headrace.hub import KNOWN, WeightFormat, list_models, open_checkpoint

WriteGguf = Callable[..., Path]

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_parameters": {"rope_theta": 1e4}}
INDEX = "model.safetensors.index.json"


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    write_json(folder / "config.json", CONFIG)
    return folder


@pytest.fixture
def whole_folder(folder: Path) -> Path:
    save_file({"x": np.zeros(2)}, folder / "model.safetensors")
    return folder


def llama_metadata(**more: Any) -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 8,
        "llama.attention.head_count": 2,
    } | more


@pytest.fixture
def llama_gguf(write_gguf: WriteGguf) -> Callable[..., Path]:
    def write(name: str = "model.gguf", **more: Any) -> Path:
        return write_gguf(llama_metadata(**more), {"token_embd.weight": np.zeros((4, 8))}, name)

    return write


def test_known_generator(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint("smollm2")
    assert (checkpoint.name, checkpoint.path, checkpoint.format) == ("smollm2", smollm2_path, WeightFormat.GGUF)
    assert checkpoint.config["hidden_size"] == 576
    assert checkpoint.generation_config == {"eos_token_id": [2]}
    assert isinstance(checkpoint.chat_template, str)
    assert "<|im_start|>" in checkpoint.chat_template
    assert checkpoint.gguf is not None
    assert len(checkpoint.gguf.tensors) == 272


def test_known_model_completes_what_its_file_lacks(gemma3_path: Path) -> None:
    checkpoint = open_checkpoint("gemma3-270m")
    assert checkpoint.path == gemma3_path
    assert checkpoint.chat_template == KNOWN["gemma3-270m"].chat_template
    assert checkpoint.generation_config == {"eos_token_id": [1, 106]}
    assert checkpoint.gguf is not None
    assert checkpoint.gguf.metadata["tokenizer.ggml.tokens"][106] == "<end_of_turn>"


def test_folder_is_taken_as_it_is(whole_folder: Path) -> None:
    write_json(whole_folder / "generation_config.json", {"temperature": 0.6, "eos_token_id": [1, 2]})
    checkpoint = open_checkpoint(str(whole_folder))
    assert checkpoint.name == str(whole_folder)
    assert checkpoint.path == whole_folder
    assert checkpoint.format == WeightFormat.SAFETENSORS
    assert checkpoint.config == CONFIG
    assert checkpoint.generation_config == {"temperature": 0.6, "eos_token_id": [1, 2]}
    assert checkpoint.chat_template is None
    assert checkpoint.gguf is None


def test_relative_folder_and_home(whole_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole_folder.parent)
    monkeypatch.setenv("HOME", str(whole_folder.parent))
    assert open_checkpoint("my-model").path == Path("my-model")
    assert open_checkpoint("~/my-model").path == whole_folder


def test_shards(folder: Path) -> None:
    write_json(folder / INDEX, {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors"}})
    save_file({"a": np.zeros(1)}, folder / "m-1.safetensors")
    with pytest.raises(BadCheckpoint, match=r"these files are missing: m-2\.safetensors$"):
        open_checkpoint(str(folder))
    save_file({"b": np.zeros(1), "c": np.zeros(1)}, folder / "m-2.safetensors")
    assert open_checkpoint(str(folder)).format == WeightFormat.SAFETENSORS


def test_gguf_file_and_folder_that_holds_it(llama_gguf: Callable[..., Path]) -> None:
    path = llama_gguf(**{"tokenizer.ggml.eos_token_id": 3, "tokenizer.chat_template": "T"})
    for model in (path, path.parent):
        checkpoint = open_checkpoint(str(model))
        assert (checkpoint.path, checkpoint.format) == (path, WeightFormat.GGUF)
        assert checkpoint.config["vocab_size"] == 4
        assert checkpoint.generation_config == {"eos_token_id": [3]}
        assert checkpoint.chat_template == "T"


def test_several_gguf_files_have_to_be_told_apart(llama_gguf: Callable[..., Path]) -> None:
    path = llama_gguf("a.gguf")
    llama_gguf("b.gguf")
    with pytest.raises(BadCheckpoint, match=r"several GGUF files, name one of them: a\.gguf, b\.gguf"):
        open_checkpoint(str(path.parent))


def test_split_gguf_is_refused_with_the_remedy(llama_gguf: Callable[..., Path]) -> None:
    path = llama_gguf(**{"split.count": 3})
    with pytest.raises(BadCheckpoint, match=r"one of 3 parts.*llama-gguf-split --merge"):
        open_checkpoint(str(path))


DAMAGED_FOLDERS: dict[str, dict[str, str]] = {
    "no weights": {"config.json": "{}"},
    "config.json is missing or empty": {"model.safetensors": ""},
    r"config\.json: cannot be read as JSON": {"model.safetensors": "", "config.json": '{"a":'},
    r"config\.json: a JSON object is expected, it holds a list": {"model.safetensors": "", "config.json": "[]"},
    "no weight_map": {INDEX: '{"metadata": {}}'},
    "chat_template must be a text or a list": {
        "model.safetensors": "",
        "config.json": '{"a": 1}',
        "tokenizer_config.json": '{"chat_template": 3}',
    },
    "generation_config.json: cannot be read": {
        "model.safetensors": "",
        "config.json": '{"a": 1}',
        "generation_config.json": "",
    },
}


@pytest.mark.parametrize("complaint", DAMAGED_FOLDERS)
def test_damaged_folders(tmp_path: Path, complaint: str) -> None:
    for name, content in DAMAGED_FOLDERS[complaint].items():
        (tmp_path / name).write_text(content)
    with pytest.raises(BadCheckpoint, match=complaint):
        open_checkpoint(str(tmp_path))


def test_safetensors_file_instead_of_its_folder(whole_folder: Path) -> None:
    with pytest.raises(BadCheckpoint, match="name the folder instead"):
        open_checkpoint(str(whole_folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("smolm2", r"Did you mean smollm2"),
        ("Gemma3-270M", r"Did you mean gemma3-270m\?"),
        ("zzz", r"Known names: smollm2, minilm, gemma3-270m\."),
        ("./absent", r"\./absent: no such file or folder"),
        ("absent.gguf", r"absent\.gguf: no such file or folder"),
        ("a/b/c", r"a/b/c: no such file or folder"),
        ("x" * 5000, "not a known name"),
        ("", "not a known name"),
    ],
)
def test_unknown_names(model: str, hint: str) -> None:
    with pytest.raises(ModelNotFound, match=hint):
        open_checkpoint(model)


def test_only_hub_ids_have_revisions(whole_folder: Path) -> None:
    for model in ("smollm2", str(whole_folder)):
        with pytest.raises(ConfigError, match="only Hub ids have revisions"):
            open_checkpoint(model, revision="main")


def test_template_as_text_or_by_name_in_tokenizer_config(whole_folder: Path) -> None:
    config = whole_folder / "tokenizer_config.json"
    write_json(config, {"chat_template": "A"})
    assert open_checkpoint(str(whole_folder)).chat_template == "A"
    write_json(config, {"chat_template": [{"name": "default", "template": "A"}, {"name": "rag", "template": "B"}]})
    assert open_checkpoint(str(whole_folder)).chat_template == {"default": "A", "rag": "B"}
    write_json(config, {"chat_template": [{"name": "default", "template": "A"}]})
    assert open_checkpoint(str(whole_folder)).chat_template == "A"


def test_template_files_win_over_tokenizer_config(whole_folder: Path) -> None:
    write_json(whole_folder / "chat_template.json", {"chat_template": "C"})
    assert open_checkpoint(str(whole_folder)).chat_template == "C"
    write_json(whole_folder / "tokenizer_config.json", {"chat_template": "A"})
    assert open_checkpoint(str(whole_folder)).chat_template == "A"
    (whole_folder / "chat_template.jinja").write_text("größer")
    assert open_checkpoint(str(whole_folder)).chat_template == "größer"
    (whole_folder / "additional_chat_templates").mkdir()
    (whole_folder / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    assert open_checkpoint(str(whole_folder)).chat_template == {"default": "größer", "tool_use": "T"}


def test_named_templates_of_a_gguf(llama_gguf: Callable[..., Path]) -> None:
    path = llama_gguf(**{"tokenizer.chat_template": "D", "tokenizer.chat_template.tool_use": "T"})
    assert open_checkpoint(str(path)).chat_template == {"default": "D", "tool_use": "T"}


def test_list_models(smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = {line.name: line for line in list_models()}
    assert listing.keys() == KNOWN.keys()
    assert listing["smollm2"].present
    assert listing["smollm2"].path == smollm2_path
    assert listing["smollm2"].size == smollm2_path.stat().st_size
    monkeypatch.setenv("HEADRACE_MODELS", str(tmp_path))
    assert not any(line.present for line in list_models())
    assert listing["gemma3-270m"].licence.startswith("Gemma")


def test_import_stays_light() -> None:
    heavy = {"torch", "huggingface_hub", "transformers", "tqdm", "filelock"}
    code = f"import sys, headrace.hub; print(sorted({heavy!r} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def render_gemma3(messages: list[dict[str, Any]], **variables: Any) -> str:
    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    template = KNOWN["gemma3-270m"].chat_template
    assert template is not None
    return environment.from_string(template).render(messages=messages, bos_token="<bos>", **variables)


def test_gemma3_template_turns() -> None:
    messages = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hi\n"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "Bye"}, {"type": "text", "text": " now"}]},
    ]
    expected = (
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nByenow<end_of_turn>\n"
    )
    assert render_gemma3(messages) == expected
    assert render_gemma3(messages, add_generation_prompt=True) == expected + "<start_of_turn>model\n"
    messages[0]["content"] = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    assert render_gemma3(messages) == expected


@pytest.mark.parametrize("roles", ["assistant", "user user", "user system", "system assistant", "user tool"])
def test_gemma3_template_refuses_roles_that_do_not_alternate(roles: str) -> None:
    with pytest.raises(TemplateError, match="Roles must alternate"):
        render_gemma3([{"role": role, "content": "x"} for role in roles.split()])


def test_gemma3_template_refuses_what_the_model_cannot_see() -> None:
    with pytest.raises(TemplateError, match="parts of type image"):
        render_gemma3([{"role": "user", "content": [{"type": "image"}]}])
