"""Small files of the real formats, written by the reference writers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

Metadata = dict[str, Any]


@pytest.fixture
def write_gguf(tmp_path: Path) -> Callable[..., Path]:
    """Writes a GGUF file of the given metadata and float32 tensors with the `gguf` package."""

    def write(metadata: Metadata, tensors: dict[str, np.ndarray] | None = None, name: str = "model.gguf") -> Path:
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, metadata["general.architecture"])
        for key, value in metadata.items():
            if key != "general.architecture":
                _add(writer, key, value)
        for tensor_name, values in (tensors or {}).items():
            writer.add_tensor(tensor_name, values.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value.tolist() if isinstance(value, np.ndarray) else value)
