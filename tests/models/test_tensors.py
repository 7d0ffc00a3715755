"""Reading safetensors files, good and damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from penstock.errors import DataError
from penstock.models.tensors import TensorFile


def write(file: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def test_tensors_are_what_was_saved(tmp_path: Path) -> None:
    want: dict[str, np.ndarray[Any, Any]] = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "single": np.linspace(0, 1, 5, dtype=np.float32),
        "long": np.array([[7]], dtype=np.int64),
    }
    save_file(want, tmp_path / "x.safetensors", metadata={"format": "pt"})
    tensors = TensorFile(tmp_path / "x.safetensors")
    for name, array in want.items():
        assert name in tensors
        assert np.array_equal(tensors[name], array)
        assert tensors[name].dtype == array.dtype
    tensors.release()
    assert np.array_equal(tensors["single"], want["single"])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80], "<u2")
    header = {"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    found = TensorFile(write(tmp_path / "x", header, bits.tobytes()))["x"]
    assert found.dtype == np.float32
    assert found.tolist() == [1.0, -2.0, float("inf")]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"not json",
        {"x": 7},
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [400], "data_offsets": [0, 1600]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}},
    ],
)
def test_a_damaged_file_is_a_data_error(tmp_path: Path, header: object) -> None:
    file = write(tmp_path / "x", header, bytes(8))
    with pytest.raises(DataError, match=r"safetensors file|cannot be read"):
        TensorFile(file)["x"]


def test_an_empty_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(DataError):
        TensorFile(tmp_path / "x")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tensor 'y'"):
        TensorFile(write(tmp_path / "x", {}))["y"]
