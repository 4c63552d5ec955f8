from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.errors import BadCheckpoint, ModelNotFound
from headrace.hub import GGML_TYPES, GgufHeader, read_gguf_header

PREAMBLE = struct.Struct("<4sIQQ")


def preamble(*, version: int = 3, tensors: int = 0, entries: int = 0) -> bytes:
    return PREAMBLE.pack(b"GGUF", version, tensors, entries)


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, kind: int, dimensions: list[int], offset: int) -> bytes:
    layout = f"<I{len(dimensions)}QIQ"
    return text(name) + struct.pack(layout, len(dimensions), *dimensions, kind, offset)


@pytest.fixture
def parse(tmp_path: Path) -> Callable[[bytes], GgufHeader]:
    def parse_bytes(content: bytes) -> GgufHeader:
        path = tmp_path / "bytes.gguf"
        path.write_bytes(content)
        return read_gguf_header(path)

    return parse_bytes


def assert_equals_reference(header: GgufHeader, reference: gguf.GGUFReader) -> None:
    fields = {key: field for key, field in reference.fields.items() if not key.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for key, field in fields.items():
        value = header.metadata[key]
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == field.contents(), key
    assert list(header.tensors) == [expected.name for expected in reference.tensors]
    for expected in reference.tensors:
        found = header.tensors[expected.name]
        assert found.type == expected.tensor_type.name
        assert found.shape == tuple(expected.shape.tolist())[::-1]
        assert (found.offset, found.nbytes) == (expected.data_offset, expected.n_bytes)


def test_equals_the_reference_reader_on_smollm2(smollm2_path: Path) -> None:
    assert_equals_reference(read_gguf_header(smollm2_path), gguf.GGUFReader(smollm2_path))


def test_gemma3_vocabulary_and_tensor_table(gemma3_path: Path) -> None:
    """By its own consistency: the reference reader takes over 20 s for this vocabulary."""
    header = read_gguf_header(gemma3_path)
    tokens, scores = header.metadata["tokenizer.ggml.tokens"], header.metadata["tokenizer.ggml.scores"]
    assert len(tokens) == len(scores) == header.tensors["token_embd.weight"].shape[0] == 262_144
    assert tokens[:4] == ["<pad>", "<eos>", "<bos>", "<unk>"]
    assert tokens[106] == "<end_of_turn>"
    assert scores.dtype == np.float32
    assert {tensor.type for tensor in header.tensors.values()} == {"F32", "Q5_0", "Q8_0", "Q4_K", "Q6_K"}
    in_order = sorted(header.tensors.values(), key=lambda tensor: tensor.offset)
    for before, after in itertools.pairwise(in_order):
        assert after.offset == -(-(before.offset + before.nbytes) // 32) * 32
    assert in_order[-1].offset + in_order[-1].nbytes == gemma3_path.stat().st_size


@pytest.mark.parametrize(("model", "limit"), [("smollm2_path", 0.3), ("gemma3_path", 0.7)])
def test_is_fast(model: str, limit: float, request: pytest.FixtureRequest) -> None:
    """0.04 s and 0.10 s on an idle machine; the limits leave room for a busy one."""
    path = request.getfixturevalue(model)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        read_gguf_header(path)
        seconds.append(time.process_time() - start)
    assert min(seconds) < limit


def test_types_equal_the_reference() -> None:
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: (kind.name, kind.block_size, kind.block_bytes) for number, kind in GGML_TYPES.items()}
    assert ours == theirs


def test_every_kind_of_metadata_value(parse: Callable[[bytes], GgufHeader]) -> None:
    nested = struct.pack("<IQ", 9, 2) + struct.pack("<IQ2H", 2, 2, 1, 2) + struct.pack("<IQ", 8, 1) + text("x")
    values = [
        (0, struct.pack("<B", 255), 255),
        (1, struct.pack("<b", -1), -1),
        (2, struct.pack("<H", 65535), 65535),
        (3, struct.pack("<h", -2), -2),
        (4, struct.pack("<I", 2**32 - 1), 2**32 - 1),
        (5, struct.pack("<i", -3), -3),
        (6, struct.pack("<f", 0.5), 0.5),
        (7, b"\x01", True),
        (8, text("größe"), "größe"),
        (9, struct.pack("<IQ2f", 6, 2, 0.25, 4.0), [0.25, 4.0]),
        (9, struct.pack("<IQ", 8, 2) + text("") + text("日本"), ["", "日本"]),
        (9, struct.pack("<IQ", 7, 2) + b"\x00\x01", [False, True]),
        (9, struct.pack("<IQ", 4, 0), []),
        (9, nested, [[1, 2], ["x"]]),
        (10, struct.pack("<Q", 2**64 - 1), 2**64 - 1),
        (11, struct.pack("<q", -(2**63)), -(2**63)),
        (12, struct.pack("<d", 1e-300), 1e-300),
    ]
    body = b"".join(entry(f"key{n}", kind, raw) for n, (kind, raw, _) in enumerate(values))
    metadata = parse(preamble(entries=len(values)) + body).metadata
    for n, (_, _, expected) in enumerate(values):
        value = metadata[f"key{n}"]
        if isinstance(value, np.ndarray):
            value = value.tolist()
        elif isinstance(value, list):
            value = [item.tolist() if isinstance(item, np.ndarray) else item for item in value]
        assert value == expected
        assert type(value) is type(expected)


@pytest.mark.parametrize("version", [2, 3])
def test_tensor_table(parse: Callable[[bytes], GgufHeader], version: int) -> None:
    head = (
        preamble(version=version, tensors=2, entries=1)
        + entry("general.alignment", 4, struct.pack("<I", 64))
        + tensor("a", 2, [64, 3], 0)
        + tensor("b", 30, [5], 128)
    )
    start = -(-len(head) // 64) * 64
    tensors = parse(head.ljust(start + 128 + 10, b"\0")).tensors
    assert (tensors["a"].type, tensors["a"].shape, tensors["a"].offset, tensors["a"].nbytes) == (
        "Q4_0",
        (3, 64),
        start,
        108,
    )
    assert (tensors["b"].type, tensors["b"].shape, tensors["b"].offset, tensors["b"].nbytes) == (
        "BF16",
        (5,),
        start + 128,
        10,
    )


DAMAGED = {
    "holds only 0 bytes": b"",
    "not a GGUF file: it begins with b'PK": b"PK\x03\x04".ljust(64, b"\0"),
    "version 1 is not supported": preamble(version=1),
    "big-endian": PREAMBLE.pack(b"GGUF", 0x03000000, 0, 0),
    "key 'k' occurs twice": preamble(entries=2) + entry("k", 7, b"\1") * 2,
    "unknown type 13": preamble(entries=1) + entry("k", 13, b"\0" * 8),
    "nests arrays": preamble(entries=1) + entry("k", 9, struct.pack("<IQ", 9, 1) * 6 + struct.pack("<IQ", 4, 0)),
    "not UTF-8": preamble(entries=1) + entry("k", 8, struct.pack("<Q", 2) + b"\xff\xfe"),
    "not UTF-8: ": preamble(entries=1) + entry("k", 9, struct.pack("<IQQ", 8, 1, 2) + b"\xff\xfe"),
    f"{2**64 + 15} bytes are expected": preamble(entries=1) + entry("k", 9, struct.pack("<IQQQ", 8, 2, 0, 2**64 - 1)),
    f"{2**62} bytes are expected": preamble(entries=1) + entry("k", 9, struct.pack("<IQ", 0, 2**62)),
    "general.alignment is 3": preamble(entries=1) + entry("general.alignment", 4, struct.pack("<I", 3)),
    "has 5 dimensions": preamble(tensors=1) + tensor("t", 0, [1] * 5, 0),
    "type 4, which is unknown": preamble(tensors=1) + tensor("t", 4, [32], 0),
    "rows of 33 elements": preamble(tensors=1) + tensor("t", 2, [33], 0),
    "lies at 4, which is not a multiple": preamble(tensors=1) + tensor("t", 0, [1], 4),
    "tensor 't' occurs twice": (preamble(tensors=2) + tensor("t", 0, [1], 0) * 2).ljust(256, b"\0"),
    "tensor 't' ends at byte": preamble(tensors=1) + tensor("t", 0, [2**40, 2**40], 0),
}


@pytest.mark.parametrize("complaint", DAMAGED)
def test_damage_is_named(parse: Callable[[bytes], GgufHeader], complaint: str) -> None:
    with pytest.raises(BadCheckpoint, match=r"bytes\.gguf: ") as raised:
        parse(DAMAGED[complaint])
    assert complaint.removesuffix(": ") in str(raised.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"absent\.gguf: no such file"):
        read_gguf_header(tmp_path / "absent.gguf")
    with pytest.raises(BadCheckpoint, match="Is a directory"):
        read_gguf_header(tmp_path)


WHOLE = (
    preamble(tensors=2, entries=4)
    + entry("general.architecture", 8, text("llama"))
    + entry("tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("bc") + text("déf"))
    + entry("scores", 9, struct.pack("<IQ3f", 6, 3, 0.0, -1.0, -2.0))
    + entry("nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQB", 0, 1, 7))
    + tensor("a", 2, [32, 2], 0)
    + tensor("b", 0, [4], 64)
)
WHOLE = WHOLE.ljust(-(-len(WHOLE) // 32) * 32 + 80, b"\0")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(WHOLE) - 1))
def test_no_truncated_file_is_accepted(parse: Callable[[bytes], GgufHeader], length: int) -> None:
    assert list(parse(WHOLE).tensors) == ["a", "b"]
    with pytest.raises(BadCheckpoint):
        parse(WHOLE[:length])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(WHOLE) - 1), patch=st.binary(min_size=1, max_size=9))
def test_damage_anywhere_is_read_or_refused(parse: Callable[[bytes], GgufHeader], position: int, patch: bytes) -> None:
    damaged = WHOLE[:position] + patch + WHOLE[position + len(patch) :]
    try:
        header = parse(damaged)
    except BadCheckpoint:
        return
    assert all(tensor.offset + tensor.nbytes <= len(damaged) for tensor in header.tensors.values())
