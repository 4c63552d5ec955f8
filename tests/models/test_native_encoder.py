"""The native encoder against the one in torch for every variation of the spec; that nothing depends on neighbours."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from headrace.kernels import select_ops
from headrace.kernels.cpu import CpuKernels
from headrace.models import EncoderBlueprint, EncoderSpec, NativeEncoder, TorchEncoder, WeightStorage
from headrace.models.encoder_parameters import EncoderNames, encoder_parameters
from headrace.models.encoder_spec import EncoderLayerSpec, Function, RelativeBias, Residual
from headrace.models.parameters import Parameter, Part, Role
from headrace.models.spec import LinearScaling, RopeSpec, YarnScaling

CPU = torch.device("cpu")
VOCABULARY = 97
LENGTHS = (5, 1, 16, 33, 17, 2, 70, 15)

BERT = EncoderSpec(
    vocab_size=VOCABULARY,
    hidden_size=64,
    embedding_size=64,
    intermediate_size=96,
    num_heads=4,
    head_dim=16,
    max_position=160,
    layers=(EncoderLayerSpec(),) * 3,
    norm_eps=1e-12,
    type_vocab_size=2,
    position_rows=160,
)
LOCAL = EncoderLayerSpec(rope=RopeSpec(16, 10000.0), window=8)
GLOBAL = EncoderLayerSpec(rope=RopeSpec(8, 160000.0, LinearScaling(2.0)))
MODERN = replace(
    BERT,
    layers=(replace(GLOBAL, attention_norm=False), LOCAL, LOCAL, GLOBAL),
    residual=Residual.NORM_OF_INPUT,
    gated=True,
    type_vocab_size=0,
    position_rows=0,
    **dict.fromkeys(("norm_bias", "qkv_bias", "attention_out_bias", "up_bias", "down_bias"), False),
)
YARN = RopeSpec(16, 1e4, YarnScaling(4.0, 40, 1.2, 32.0, 1.0, truncate=True))
SPECS = {
    "bert": BERT,
    "roberta": replace(BERT, type_vocab_size=1, position_rows=162, position_offset=2),
    "distilbert": replace(BERT, type_vocab_size=0),
    "mpnet": replace(BERT, type_vocab_size=0, relative_bias=RelativeBias(num_buckets=32, max_distance=128)),
    "electra": replace(BERT, embedding_size=24),
    "modern": MODERN,
    "yarn": replace(MODERN, layers=(replace(LOCAL, rope=YARN),) * 2, function=Function.SILU),
    "odd": replace(BERT, hidden_size=45, embedding_size=45, intermediate_size=77, num_heads=5, head_dim=9),
    "wide heads": replace(BERT, num_heads=3, head_dim=40, layers=(EncoderLayerSpec(window=3),) * 2),
    "relu": replace(BERT, function=Function.RELU),
    "gelu_tanh": replace(BERT, function=Function.GELU_TANH, gated=True),
}


class MemoryWeights:
    """A checkpoint in memory; implements `WeightReader`."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def kind(self, part: Part) -> str:
        return {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[self.tensors[part.name].dtype]

    def stored(self, part: Part) -> Tensor:
        return self.tensors[part.name].view(torch.uint8)

    def values(self, part: Part, dtype: torch.dtype) -> Tensor:
        return self.tensors[part.name].to(dtype)

    def tensor(self, parameter: Parameter, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.cat([self.tensors[part.name] for part in parameter.parts]).to(device, dtype)


def random_weights(spec: EncoderSpec, dtype: torch.dtype = torch.float32) -> MemoryWeights:
    """Large enough to make every part matter; products do not grow."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for parameter in blueprint(spec).parameters:
        for part in parameter.parts:
            values = torch.randn(part.shape, generator=generator)
            if parameter.role is Role.NORM and not parameter.name.endswith("_bias"):
                values = 1 + values / 4
            elif parameter.role is Role.LINEAR:
                values = values * 2 / part.shape[1] ** 0.5
            tensors[part.name] = values.to(dtype)
    return MemoryWeights(tensors)


def blueprint(spec: EncoderSpec) -> EncoderBlueprint:
    up = ("mlp.Wi",) if spec.gated else ("intermediate.dense",)
    return EncoderBlueprint(spec=spec, parameters=encoder_parameters(spec, EncoderNames(up=up)))


def in_torch(spec: EncoderSpec, weights: MemoryWeights) -> TorchEncoder:
    model = TorchEncoder(blueprint(spec), select_ops(CPU), dtype=torch.float32, device=CPU)
    model.load(weights)
    return model


def native(
    spec: EncoderSpec,
    weights: MemoryWeights,
    storage: WeightStorage = WeightStorage.FLOAT32,
    *,
    threads: int = 2,
    isa: str | None = None,
) -> NativeEncoder:
    library = pytest.importorskip("headrace.kernels.cpu._native", reason="the native library was not built")
    model = NativeEncoder(blueprint(spec), CpuKernels(library, threads, isa), storage)
    model.load(weights)
    return model


def random_ids(length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))


def run(model: TorchEncoder | NativeEncoder, sequences: Sequence[Tensor], *, typed: bool = False) -> list[Tensor]:
    """What becomes of each sequence; `typed`: the second half of a sequence is of type 1."""
    lengths = [len(ids) for ids in sequences]
    types = torch.cat([torch.arange(length) * 2 // length for length in lengths]) if typed else None
    return [states.clone() for states in model.forward(torch.cat(list(sequences)), types, lengths).split(lengths)]


def distance(ours: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference, as a share of the spread."""
    return ((ours - exact).square().mean() / exact.var()).sqrt().item()


@pytest.fixture(scope="module")
def library() -> ModuleType:
    pytest.importorskip("headrace.kernels.cpu._native", reason="the native library was not built")
    return importlib.import_module("headrace.kernels.cpu._native")


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512", "avx512vnni"])
@pytest.mark.parametrize("name", SPECS)
def test_the_states_are_those_of_torch(library: ModuleType, name: str, level: str) -> None:
    if level not in library.isa_levels():
        pytest.skip(f"no {level} on this machine")
    spec = SPECS[name]
    weights = random_weights(spec)
    sequences = [random_ids(length) for length in LENGTHS]
    typed = spec.type_vocab_size > 1

    model = native(spec, weights, isa=level)

    assert (model.kernels, model.precision) == (f"native {level}", "float32")
    exact = run(in_torch(spec, weights), sequences, typed=typed)
    for ours, theirs in zip(run(model, sequences, typed=typed), exact, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_the_longest_sequence() -> None:
    """More scores than are kept at once, and a window that begins and ends within them."""
    spec = replace(MODERN, max_position=3000)
    weights = random_weights(spec)
    sequences = [random_ids(3000), random_ids(1025)]
    exact = run(in_torch(spec, weights), sequences)
    for ours, theirs in zip(run(native(spec, weights), sequences), exact, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_types_are_ignored_by_a_model_without_them() -> None:
    spec = SPECS["distilbert"]
    model = native(spec, random_weights(spec))
    sequences = [random_ids(20)]
    assert torch.equal(run(model, sequences, typed=True)[0], run(model, sequences)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["bert", "modern", "odd"])
def test_half_precision_rounds_the_weights_and_nothing_else(name: str, dtype: torch.dtype) -> None:
    spec = SPECS[name]
    exact = random_weights(spec)
    rounded = MemoryWeights(
        {
            part.name: exact.tensors[part.name].to(
                dtype if part.name.endswith(".weight") and len(part.shape) == 2 else torch.float32
            )
            for parameter in blueprint(spec).parameters
            for part in parameter.parts
        }
    )
    sequences = [random_ids(40)]

    model = native(spec, exact, WeightStorage(str(dtype).removeprefix("torch.")))

    [ours], [theirs] = run(model, sequences), run(in_torch(spec, rounded), sequences)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_auto_keeps_what_the_file_holds(dtype: torch.dtype) -> None:
    weights = random_weights(BERT, dtype)
    sequences = [random_ids(40)]

    model = native(BERT, weights, WeightStorage.AS_STORED)

    assert model.precision == str(dtype).removeprefix("torch.")
    [ours], [theirs] = run(model, sequences), run(in_torch(BERT, weights), sequences)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("storage", "precision", "limits"),
    [
        (WeightStorage.INT16, "int16", {"bert": 1e-3, "modern": 1e-2}),
        (WeightStorage.INT8, "q8_0", {"bert": 3e-2, "modern": 0.2}),
        (WeightStorage.INT4, "q4_1", {"bert": 0.3, "modern": 0.8}),
    ],
)
@pytest.mark.parametrize("name", ["bert", "modern"])
def test_rounded_weights(name: str, storage: WeightStorage, precision: str, limits: dict[str, float]) -> None:
    """A random model makes much of small differences, one without norms behind its sublayers more than the other."""
    spec = SPECS[name]
    weights = random_weights(spec)
    sequences = [random_ids(40)]

    model = native(spec, weights, storage)

    assert model.precision == precision
    [ours], [exact] = run(model, sequences), run(in_torch(spec, weights), sequences)
    assert 0 < distance(ours, exact) < limits[name]


@pytest.mark.parametrize("storage", [WeightStorage.INT16, WeightStorage.INT8])
def test_rows_that_have_no_whole_groups_stay_float32(storage: WeightStorage) -> None:
    spec = SPECS["odd"]
    weights = random_weights(spec)

    model = native(spec, weights, storage)

    assert model.precision == "float32"
    [ours], [exact] = run(model, [random_ids(40)]), run(in_torch(spec, weights), [random_ids(40)])
    assert distance(ours, exact) < 1e-3  # embeddings in 16 bits


class TestSameBits:
    """A sequence's states are the same to the last bit, whatever is computed beside it and by however many threads."""

    SEQUENCES = tuple(random_ids(length, seed) for seed, length in enumerate((90, 33, 17, 64, 5, 1, 40, 12)))

    @pytest.fixture(params=["bert", "mpnet", "modern"])
    def spec(self, request: pytest.FixtureRequest) -> EncoderSpec:
        return SPECS[request.param]

    @pytest.fixture(params=[WeightStorage.FLOAT32, WeightStorage.BFLOAT16, WeightStorage.INT16, WeightStorage.INT8])
    def storage(self, request: pytest.FixtureRequest) -> WeightStorage:
        return request.param

    def test_alone_together_and_in_another_order(self, spec: EncoderSpec, storage: WeightStorage) -> None:
        model = native(spec, random_weights(spec), storage)
        alone = [run(model, [ids])[0] for ids in self.SEQUENCES]
        for ours, expected in zip(run(model, self.SEQUENCES), alone, strict=True):
            assert torch.equal(ours, expected)
        for ours, expected in zip(run(model, self.SEQUENCES[::-1]), alone[::-1], strict=True):
            assert torch.equal(ours, expected)
        # So many that each thread takes some of them through all layers by itself.
        for at, ours in enumerate(run(model, self.SEQUENCES * 4)):
            assert torch.equal(ours, alone[at % len(alone)])

    @pytest.mark.parametrize("threads", [1, 3, 8])
    def test_any_number_of_threads(self, spec: EncoderSpec, storage: WeightStorage, threads: int) -> None:
        weights = random_weights(spec)
        expected = run(native(spec, weights, storage), self.SEQUENCES)
        model = native(spec, weights, storage, threads=threads)
        for copies in (1, 4):
            for at, ours in enumerate(run(model, self.SEQUENCES * copies)):
                assert torch.equal(ours, expected[at % len(expected)])

    @pytest.mark.parametrize("poison", [float("nan"), float("inf")])
    def test_beside_a_sequence_that_is_not_finite(
        self, spec: EncoderSpec, storage: WeightStorage, poison: float
    ) -> None:
        """Token 96 has no finite embedding: its sequence is lost, and no other."""
        weights = random_weights(spec)
        weights.tensors["embeddings.word_embeddings.weight"][96] = poison
        model = native(spec, weights, storage)
        sequences = [ids % 96 for ids in self.SEQUENCES]
        expected = run(model, sequences)

        *others, lost = run(model, [*sequences, torch.tensor([5, 6, 96, 7, 8])])

        for ours, theirs in zip(others, expected, strict=True):
            assert theirs.isfinite().all()
            assert torch.equal(ours, theirs)
        assert not lost[2].isfinite().any()


def test_what_an_encoder_cannot_run_is_refused_and_harms_nothing() -> None:
    model = native(BERT, random_weights(BERT))
    expected = run(model, [random_ids(10)])[0]
    with pytest.raises(ValueError, match="not in the vocabulary"):
        run(model, [torch.tensor([3, VOCABULARY])])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        run(model, [torch.tensor([-1])])
    with pytest.raises(ValueError, match="longer than the encoder has positions"):
        run(model, [random_ids(161)])
    with pytest.raises(ValueError, match="no such type"):
        model.forward(torch.tensor([3]), torch.tensor([2]), [1])
    with pytest.raises(ValueError, match="a sequence needs a token"):
        model.forward(torch.tensor([3]), None, [1, 0])
    assert torch.equal(run(model, [random_ids(10)])[0], expected)


def test_states_lie_in_memory_that_is_used_again() -> None:
    model = native(BERT, random_weights(BERT))
    first = model.forward(random_ids(10), None, [10])
    kept = first.clone()
    second = model.forward(random_ids(7), None, [7])
    assert second.data_ptr() == first.data_ptr()
    assert torch.equal(model.forward(random_ids(10), None, [10]), kept)
