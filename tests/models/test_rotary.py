"""Every kind of rotary scaling against transformers, in both spellings of the config."""

from __future__ import annotations

import pytest
import torch
from paged_driver import CPU, LOAD, PagedDriver

from headrace.core.errors import BadCheckpoint
from headrace.models import read_blueprint
from headrace.models.config import rope
from headrace.models.rotary import Rotary
from headrace.models.spec import FrequencyDivisors, RopeSpec

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32}

SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {"rope_type": "llama3", **LLAMA3},
    "yarn": {"rope_type": "yarn", **YARN},
    "yarn_attention_factor": {"rope_type": "yarn", **YARN, "attention_factor": 1.3},
    "yarn_mscale": {"rope_type": "yarn", **YARN, "mscale": 0.7, "mscale_all_dim": 0.4},
    "yarn_betas": {"rope_type": "yarn", **YARN, "beta_fast": 8.0, "beta_slow": 0.5, "truncate": False},
}


def random_ids(count):
    return torch.randint(0, 97, (count,), generator=torch.Generator().manual_seed(5)).tolist()


@pytest.fixture(params=LOAD)
def load_model(request):
    return LOAD[request.param]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaling(tiny_model, scaling, load_model):
    tiny = tiny_model("llama", rope_parameters={"rope_theta": 500.0, **SCALINGS[scaling]})
    ids = random_ids(100)

    logits = PagedDriver(load_model(tiny.path)).step([(0, ids)])[0]

    torch.testing.assert_close(logits, tiny.logits(ids), atol=1e-4, rtol=0)


def test_dynamic_scaling_decodes_past_the_original_context(tiny_model, load_model):
    """transformers recomputes the frequencies for the length at each call, so its tokens go in one by one too."""
    scaling = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.5}
    tiny = tiny_model("llama", rope_parameters=scaling, max_position_embeddings=16)
    ids = random_ids(36)
    cache, expected = None, []
    with torch.inference_mode():
        for token in ids:
            output = tiny.reference(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            expected.append(output.logits[0])
    model = load_model(tiny.path)
    assert model.spec.max_position == 40

    token_by_token = PagedDriver(model)
    logits = torch.cat([token_by_token.step([(0, [token])])[0] for token in ids])
    at_once = PagedDriver(model).step([(0, ids)])[0]

    torch.testing.assert_close(logits, torch.cat(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(at_once, logits, atol=1e-4, rtol=0)


BASE = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 128}


@pytest.mark.parametrize("scaling", [*SCALINGS.values(), {"rope_type": "dynamic", "factor": 2.0}])
def test_classic_spelling_means_the_same(scaling):
    new = {**BASE, "rope_parameters": {"rope_theta": 777.0, "partial_rotary_factor": 0.5, **scaling}}
    classic = {**BASE, "rope_theta": 777.0, "partial_rotary_factor": 0.5, "rope_scaling": scaling}
    oldest = {**classic, "rope_scaling": {**scaling, "type": scaling["rope_type"]}}
    del oldest["rope_scaling"]["rope_type"]

    assert rope(new, "full_attention") == rope(classic, "full_attention") == rope(oldest, "full_attention")
    assert rope(new, "full_attention").dim == 8


def test_gguf_divisors_divide_the_frequencies():
    plain = Rotary(RopeSpec(8, 100.0), CPU)
    divided = Rotary(RopeSpec(8, 100.0, FrequencyDivisors((1.0, 2.0, 4.0, 8.0))), CPU)

    for pair, divisor in enumerate((1, 2, 4, 8)):
        at_eight = divided.angles(torch.tensor([8]))[0, pair]
        torch.testing.assert_close(at_eight, plain.angles(torch.tensor([8 // divisor]))[0, pair])


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}, "'longrope' are not supported"),
        ({"rope_type": "linear"}, "'linear' needs 'factor'"),
    ],
)
def test_refused_by_name(tiny_model, scaling, message):
    config = {**tiny_model("llama").reference.config.to_dict(), "architectures": ["LlamaForCausalLM"]}
    config |= {"rope_parameters": {"rope_theta": 1e4, **scaling}}
    with pytest.raises(BadCheckpoint, match=message):
        read_blueprint(config)
