"""Every family against transformers, on tiny random checkpoints: whole, in chunks, and in mixed batches."""

from __future__ import annotations

import pytest
import torch
from paged_driver import LOAD, PagedDriver, load_reference

FAMILIES = {
    "llama": ("llama", {}),
    "llama_with_biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama_wide_heads": ("llama", {"head_dim": 32, "num_key_value_heads": 4}),
    "mistral": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {}),
    "qwen2_with_window": ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma2": (
        "gemma2",
        {
            "head_dim": 32,
            "sliding_window": 8,
            "query_pre_attn_scalar": 48,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {"num_hidden_layers": 7, "head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 48},
    ),
    "phi3": (
        "phi3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "phi3_with_window": ("phi3", {"sliding_window": 11}),
    "olmo2": ("olmo2", {}),
}


@pytest.fixture(params=FAMILIES)
def tiny(request, tiny_model):
    model_type, config = FAMILIES[request.param]
    return tiny_model(model_type, **config)


@pytest.fixture(params=LOAD)
def load_model(request):
    return LOAD[request.param]


def random_ids(count, seed=0):
    return torch.randint(0, 97, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_logits_and_greedy_tokens(tiny, load_model):
    driver = PagedDriver(load_model(tiny.path))
    ids = random_ids(45)

    torch.testing.assert_close(driver.step([(0, ids)])[0], tiny.logits(ids), atol=1e-4, rtol=0)
    assert tiny.continues_greedily(ids[:20], driver.greedy(ids[:20], 12, sequence=1))


def test_mixed_batches(tiny, load_model):
    """Sequences arrive at different steps, are prefilled in chunks of changing size, and decode beside each other."""
    driver = PagedDriver(load_model(tiny.path), seed=1)
    prompts = {0: random_ids(40, 1), 1: random_ids(28, 2), 2: random_ids(23, 3), 3: random_ids(33, 4)}
    schedule = [
        {0: 13},
        {0: 1, 1: 11},
        {0: 10, 1: 1, 2: 9},
        {0: 1, 1: 1, 2: 1, 3: 17},
        {0: 1, 1: 1, 2: 1, 3: 1},
        {0: 14, 1: 14, 2: 1, 3: 1},
        {2: 11, 3: 14},
    ]
    logits = {sequence: [] for sequence in prompts}
    done = dict.fromkeys(prompts, 0)
    for counts in schedule:
        chunks = [(n, prompts[n][done[n] : done[n] + count]) for n, count in counts.items()]
        for sequence, rows in driver.step(chunks).items():
            logits[sequence].append(rows)
            done[sequence] += len(rows)

    for sequence, ids in prompts.items():
        assert done[sequence] == len(ids)
        torch.testing.assert_close(torch.cat(logits[sequence]), tiny.logits(ids), atol=1e-4, rtol=0)


def test_only_what_is_asked_for(tiny, load_model):
    """The last tokens of some sequences, none of others; what is not asked for is in the cache all the same."""
    driver = PagedDriver(load_model(tiny.path), seed=2)
    prompts = {0: random_ids(40, 1), 1: random_ids(28, 2), 2: random_ids(23, 3)}
    expected = {sequence: tiny.logits(ids) for sequence, ids in prompts.items()}
    assert all(
        len(rows) == 0
        for rows in driver.step([(n, ids[:9]) for n, ids in prompts.items()], {0: 0, 1: 0, 2: 0}).values()
    )
    rest = driver.step([(n, ids[9:-1]) for n, ids in prompts.items()], {0: 1, 1: 0, 2: 13})
    last = driver.step([(n, ids[-1:]) for n, ids in prompts.items()], {0: 1, 1: 1, 2: 0})
    for rows, sequence, end in [(rest[0], 0, -1), (rest[2], 2, -1), (last[0], 0, 40), (last[1], 1, 28)]:
        torch.testing.assert_close(rows, expected[sequence][:end][-len(rows) :], atol=1e-4, rtol=0)
    assert [len(rest[1]), len(last[2])] == [0, 0]


def test_no_rows_give_no_logits(tiny_model, load_model):
    model = load_model(tiny_model("llama").path)

    assert model.logits(torch.empty(0, 64)).shape == (0, 97)


def test_sharded_checkpoint(tiny_model, load_model):
    whole, sharded = tiny_model("qwen3"), tiny_model("qwen3", save={"max_shard_size": "100KB"})
    assert len(list(sharded.path.glob("*.safetensors"))) > 1

    ids = random_ids(20)
    expected = PagedDriver(load_model(whole.path)).step([(0, ids)])[0]
    assert torch.equal(PagedDriver(load_model(sharded.path)).step([(0, ids)])[0], expected)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_bfloat16(tiny_model, family):
    """Computed in bfloat16, the logits stay as close to the float32 ones as transformers' do."""
    model_type, config = FAMILIES[family]
    tiny = tiny_model(model_type, **config)
    ids = random_ids(40)
    exact = tiny.logits(ids)
    half = tiny.reference.__class__.from_pretrained(tiny.path, dtype=torch.bfloat16)
    with torch.inference_mode():
        theirs = half(torch.tensor([ids])).logits[0].float()

    ours = PagedDriver(load_reference(tiny.path, torch.bfloat16)).step([(0, ids)])[0]

    assert ours.dtype is torch.float32
    assert (ours - exact).square().mean() < 1.5 * (theirs - exact).square().mean()
