"""From the name of an architecture to a model that pools: an encoder, or a decoder without its output matrix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace.core.errors import BadCheckpoint
from headrace.core.pooling import PoolingMode
from headrace.models.config import Config
from headrace.models.decoder import Blueprint
from headrace.models.encoder import EncoderBlueprint
from headrace.models.encoder_family import EncoderFamily, labels
from headrace.models.encoder_parameters import encoder_parameters
from headrace.models.families import ENCODER_FAMILIES, FAMILIES
from headrace.models.head import DenseLayer, HeadSpec
from headrace.models.parameters import LM_HEAD
from headrace.models.registry import read_blueprint

_TOKEN = "ForTokenClassification"
_STEM = re.compile(
    r"(.+?)(?:Model|ForCausalLM|ForMaskedLM|ForPreTraining|ForSequenceClassification|ForTokenClassification)"
)
_ENCODERS = {stem: family for family in ENCODER_FAMILIES for stem in family.stems}
_DECODERS = {name.removesuffix("ForCausalLM"): name for family in FAMILIES for name in family.architectures}
_DECODER_BASE = "model."
_OLD_ENDINGS = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingBlueprint:
    """All that a `config.json` says of a model that pools.

    `head` is that of a classifier; of any other model it has no layers. `name_of` makes of a tensor's name in the
    checkpoint the one by which the parameters know it. Tensors that `is_spare` are left over without harm: other heads,
    and buffers that were saved.
    """

    backbone: EncoderBlueprint | Blueprint
    head: HeadSpec
    name_of: Callable[[str], str]
    is_spare: Callable[[str], bool]

    @property
    def is_causal(self) -> bool:
        return isinstance(self.backbone, Blueprint)

    @property
    def type_vocab_size(self) -> int:
        return self.backbone.spec.type_vocab_size if isinstance(self.backbone, EncoderBlueprint) else 0

    @property
    def norm_offset(self) -> float:
        return self.backbone.norm_offset if isinstance(self.backbone, Blueprint) else 0.0


def read_pooling_blueprint(config: Config, *, classifies: bool) -> PoolingBlueprint:
    """The model that `config` (the keys of a `config.json`) describes, with its classifier or without.

    Raises `BadCheckpoint` for an architecture or a setting that is not supported.
    """
    for architecture in config.get("architectures") or []:
        stem = match[1] if (match := _STEM.fullmatch(architecture)) else architecture
        if stem in _ENCODERS:
            return _encoder(_ENCODERS[stem], config, architecture, classifies=classifies)
        if stem in _DECODERS:
            return _decoder(_DECODERS[stem], config, architecture, classifies=classifies)
    wanted = ", ".join(config.get("architectures") or []) or "none given"
    known = ", ".join(sorted(_ENCODERS.keys() | _DECODERS.keys()))
    raise BadCheckpoint(f"architecture not supported: {wanted}; models that pool can be of these: {known}")


def _encoder(family: EncoderFamily, config: Config, architecture: str, *, classifies: bool) -> PoolingBlueprint:
    spec = family.spec(config)
    read_head = family.token_head if architecture.endswith(_TOKEN) else family.sequence_head
    own = {part.name for parameter in encoder_parameters(spec, family.names) for part in parameter.parts}
    modules = {name.partition(".")[0] for name in own}

    def name_of(name: str) -> str:
        name = name.removeprefix(family.prefix)
        for old, new in _OLD_ENDINGS:
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    def is_spare(name: str) -> bool:
        return name.partition(".")[0] not in modules or name.endswith(("_ids", ".inv_freq"))

    return PoolingBlueprint(
        backbone=EncoderBlueprint(spec=spec, parameters=encoder_parameters(spec, family.names)),
        head=read_head(config, spec) if classifies else HeadSpec(PoolingMode.CLS),
        name_of=name_of,
        is_spare=is_spare,
    )


def _decoder(causal: str, config: Config, architecture: str, *, classifies: bool) -> PoolingBlueprint:
    if config.get("is_causal") is False:
        raise BadCheckpoint("config.json: is_causal is false: decoders that read in both directions are not supported")
    blueprint = read_blueprint({**config, "architectures": [causal]})
    parameters = tuple(parameter for parameter in blueprint.parameters if parameter.name != "lm_head")
    # Nobody will ask for logits; said to be tied, an output matrix is neither missed nor made.
    spec = replace(blueprint.spec, tied_embeddings=True)
    head = HeadSpec(PoolingMode.LAST)
    if classifies:
        scores = DenseLayer(
            module="score",
            in_features=spec.hidden_size,
            out_features=len(labels(config)),
            bias=architecture.endswith(_TOKEN),
        )
        head = HeadSpec(PoolingMode.LAST, (scores,))

    def name_of(name: str) -> str:
        return _DECODER_BASE + name if name.startswith(("layers.", "embed_tokens.", "norm.")) else name

    return PoolingBlueprint(
        backbone=replace(blueprint, spec=spec, parameters=parameters),
        head=head,
        name_of=name_of,
        is_spare=lambda name: name == LM_HEAD or not name.startswith(_DECODER_BASE),
    )
