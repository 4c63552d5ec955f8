"""What is the native decoder's own: how weights and KV cache are kept, and that nothing depends on neighbours."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType
from paged_driver import PagedDriver, load_native, native_kernels
from safetensors.torch import load_file, save_file

from headrace.core.errors import ConfigError
from headrace.models import WeightStorage

LLAMA = ("llama", {"attention_bias": True, "mlp_bias": True})
GEMMA2 = (
    "gemma2",
    {"head_dim": 32, "sliding_window": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
)
ODD = ("llama", {"hidden_size": 40, "intermediate_size": 72, "num_attention_heads": 5, "num_key_value_heads": 1})
"""No matrix of 32 columns."""


def random_ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 97, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def rounded(reference: Any, rounding: Callable[[str, torch.Tensor], torch.Tensor]) -> Any:
    """The model with `rounding(name, values)` in place of its matrices and embeddings, computing in float32."""
    model = copy.deepcopy(reference)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.copy_(rounding(name, parameter))
    return model


def in_groups(bits: WeightStorage) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Rounding as ggml does it."""

    def rounding(name: str, values: torch.Tensor) -> torch.Tensor:
        is_end = "embed" in name or "lm_head" in name
        kind = GGMLQuantizationType.Q4_1 if bits is WeightStorage.INT4 and not is_end else GGMLQuantizationType.Q8_0
        return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), kind), kind))

    return rounding


def logits_of(reference: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return reference(torch.tensor([ids])).logits[0]


def distance(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference, as a share of the spread of the logits."""
    return ((ours - exact).square().mean() / exact.var()).sqrt().item()


@pytest.mark.parametrize("family", [LLAMA, GEMMA2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_weights_and_nothing_else(tiny_model: Any, family: Any, dtype: torch.dtype) -> None:
    tiny = tiny_model(family[0], **family[1])
    storage = WeightStorage(str(dtype).removeprefix("torch."))
    ids = random_ids(45)
    expected = logits_of(rounded(tiny.reference, lambda _, values: values.to(dtype).float()), ids)

    model = load_native(tiny.path, storage)

    assert model.precision == storage
    assert model.kv_layout(16, "auto").dtype == "float16"
    ours = PagedDriver(model, kv="float32").step([(0, ids)])[0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_auto_keeps_what_the_file_holds(tiny_model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    half = copy.deepcopy(tiny_model("llama").reference).to(dtype)
    half.save_pretrained(tmp_path)
    exact = type(half).from_pretrained(tmp_path, dtype=torch.float32)
    ids = random_ids(30)

    model = load_native(tmp_path, WeightStorage.AS_STORED)

    assert model.precision == str(dtype).removeprefix("torch.")
    assert model.kv_layout(16, "auto").dtype == ("float32" if dtype is torch.float32 else "float16")
    ours = PagedDriver(model, kv="float32").step([(0, ids)])[0]
    torch.testing.assert_close(ours, logits_of(exact, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("storage", [WeightStorage.INT8, WeightStorage.INT4])
@pytest.mark.parametrize("family", [LLAMA, GEMMA2])
def test_quantised_weights_are_those_of_ggml(tiny_model: Any, family: Any, storage: WeightStorage) -> None:
    """What remains is the rounding of activations to 8 bits."""
    tiny = tiny_model(family[0], **family[1])
    ids = random_ids(45)
    expected = logits_of(rounded(tiny.reference, in_groups(storage)), ids)

    model = load_native(tiny.path, storage)

    assert model.precision == {"int8": "q8_0", "int4": "q4_1"}[storage]
    assert distance(PagedDriver(model).step([(0, ids)])[0], expected) < 0.1


def test_rows_that_have_no_whole_groups_stay_float32(tiny_model: Any) -> None:
    tiny = tiny_model(ODD[0], **ODD[1])
    ids = random_ids(45)

    model = load_native(tiny.path, WeightStorage.INT8)

    assert model.precision == "float32"
    torch.testing.assert_close(PagedDriver(model).step([(0, ids)])[0], tiny.logits(ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kv", "limit"), [("float16", 1e-3), ("bfloat16", 1e-2), ("int8", 2e-2)])
@pytest.mark.parametrize("family", [LLAMA, GEMMA2])
def test_what_keys_and_values_are_kept_in(tiny_model: Any, family: Any, kv: str, limit: float) -> None:
    tiny = tiny_model(family[0], **family[1])
    ids = random_ids(70)

    driver = PagedDriver(load_native(tiny.path), kv=kv)
    ours = torch.cat([driver.step([(0, ids[:50])])[0], *(driver.step([(0, [token])])[0] for token in ids[50:])])

    assert 0 < distance(ours, tiny.logits(ids)) < limit


@pytest.mark.parametrize("block_size", [32, 128])
def test_block_sizes(tiny_model: Any, block_size: int) -> None:
    tiny = tiny_model("llama")
    model, ids = load_native(tiny.path), random_ids(100)
    expected = PagedDriver(model).step([(0, ids)])[0]
    assert torch.equal(PagedDriver(model, block_size=block_size).step([(0, ids)])[0], expected)


def test_a_block_size_that_does_not_fit_the_tiles_is_refused(tiny_model: Any) -> None:
    model = load_native(tiny_model("llama").path)
    with pytest.raises(ConfigError, match=r"--block-size 8: .* multiple of 16 \(16, 32, 64, 128 or 256\)"):
        model.kv_layout(8, "auto")


STORAGES = [WeightStorage.FLOAT32, WeightStorage.BFLOAT16, WeightStorage.INT8, WeightStorage.INT4]


class TestSameBits:
    """A token's logits are the same to the last bit, whatever is computed beside it and however it was cut."""

    PROMPTS = tuple(random_ids(count, seed) for seed, count in enumerate((90, 33, 17, 64, 5)))

    @pytest.fixture(params=STORAGES, ids=str)
    def storage(self, request: pytest.FixtureRequest) -> WeightStorage:
        return request.param

    @pytest.fixture(params=["float32", "float16", "int8"])
    def kv(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture(params=[LLAMA, GEMMA2], ids=["llama", "gemma2"])
    def path(self, request: pytest.FixtureRequest, tiny_model: Any) -> Path:
        return tiny_model(request.param[0], **request.param[1]).path

    def test_alone_and_together(self, path: Path, storage: WeightStorage, kv: str) -> None:
        model = load_native(path, storage)
        alone = PagedDriver(model, kv=kv)
        expected = [alone.step([(at, ids)])[at] for at, ids in enumerate(self.PROMPTS)]

        one_by_one = PagedDriver(model, kv=kv, seed=1)
        first = self.PROMPTS[0]
        assert torch.equal(torch.cat([one_by_one.step([(0, [token])])[0] for token in first]), expected[0])

        together = PagedDriver(model, kv=kv, seed=2).step(list(enumerate(self.PROMPTS)))
        for at, logits in enumerate(expected):
            assert torch.equal(together[at], logits)

        chunked = PagedDriver(model, kv=kv, seed=3)
        found: dict[int, list[torch.Tensor]] = {at: [] for at in range(len(self.PROMPTS))}
        done = [0] * len(self.PROMPTS)
        for counts in ((31, 1, 16, 3, 0), (1, 32, 1, 60, 1), (58, 0, 0, 1, 4)):
            chunks = [(at, self.PROMPTS[at][done[at] : done[at] + count]) for at, count in enumerate(counts) if count]
            for at, logits in chunked.step(chunks).items():
                found[at].append(logits)
                done[at] += len(logits)
        for at, logits in enumerate(expected):
            assert torch.equal(torch.cat(found[at]), logits)

    @pytest.mark.parametrize(
        ("storage", "poison"),
        [
            (WeightStorage.FLOAT32, float("nan")),
            (WeightStorage.FLOAT32, float("inf")),
            (WeightStorage.INT8, float("inf")),
            (WeightStorage.INT4, -float("inf")),
        ],
    )
    def test_beside_a_row_that_is_not_finite(
        self, tiny_model: Any, tmp_path: Path, storage: WeightStorage, kv: str, poison: float
    ) -> None:
        """Token 96 has no finite embedding: its sequence is lost, and no other."""
        folder = shutil.copytree(tiny_model(LLAMA[0], **LLAMA[1]).path, tmp_path / "poisoned")
        tensors = load_file(folder / "model.safetensors")
        tensors["model.embed_tokens.weight"][96] = poison
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model = load_native(folder, storage)
        prompts = [[token % 96 for token in ids] for ids in self.PROMPTS]
        alone = PagedDriver(model, kv=kv)
        expected = [alone.step([(at, ids)])[at] for at, ids in enumerate(prompts)]

        together = PagedDriver(model, kv=kv, seed=1).step([*enumerate(prompts), (9, [5, 6, 96, 7, 8])])

        for at, logits in enumerate(expected):
            assert logits.isfinite().all()
            assert torch.equal(together[at], logits)
        assert not together[9][2:].isfinite().all(-1).any()

    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_any_number_of_threads(self, path: Path, storage: WeightStorage, threads: int) -> None:
        expected = PagedDriver(load_native(path, storage)).step(list(enumerate(self.PROMPTS)))
        model = load_native(path, storage, native_kernels(threads))
        for at, logits in PagedDriver(model, seed=1).step(list(enumerate(self.PROMPTS))).items():
            assert torch.equal(logits, expected[at])


def test_results_lie_in_memory_that_is_used_again(tiny_model: Any) -> None:
    model = load_native(tiny_model("llama").path)
    hidden = torch.randn(3, 64)
    first = model.logits(hidden)
    kept = first.clone()
    second = model.logits(torch.zeros(2, 64))
    assert second.data_ptr() == first.data_ptr()
    assert torch.equal(model.logits(hidden), kept)
