"""Weights of a safetensors file as arrays that lie in the file itself: nothing is copied."""

import mmap
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.errors import DataError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


class TensorEntry(msgspec.Struct, frozen=True):
    """One tensor as the file's header tells it: offsets are bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class TensorFile:
    """The tensors of one file by name, mapped copy-on-write (an engine may insist on writable memory).

    Format: https://github.com/huggingface/safetensors#format. bfloat16, which NumPy does not know, becomes float32.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            start = 8 + int.from_bytes(self._map[:8], "little")
            header = msgspec.json.decode(self._map[8:start], type=dict[str, dict[str, Any]])
            header.pop("__metadata__", None)
            self._entries = MappingProxyType(msgspec.convert(header, type=dict[str, TensorEntry]))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise DataError(
                f"{path} is not a readable safetensors file: {error}. Get the model's files again."
            ) from error
        self._start = start

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The tensor, as a view of the file where its type allows it. Raises DataError when there is none."""
        entry = self._entries.get(name)
        if entry is None:
            raise DataError(f"{self.path} has no tensor {name!r}: it does not fit its config.json.")
        try:
            return self._read(entry)
        except (ValueError, KeyError) as error:
            raise DataError(f"{self.path}: the tensor {name!r} cannot be read: {error}.") from error

    def _read(self, entry: TensorEntry) -> NDArray[Any]:
        begin, end = entry.data_offsets
        if begin < 0:
            raise ValueError(f"it starts at {begin}")
        dtype = np.dtype("<u2" if entry.dtype == "BF16" else DTYPES[entry.dtype])
        array = np.frombuffer(self._map, dtype, (end - begin) // dtype.itemsize, self._start + begin)
        if entry.dtype == "BF16":
            array = (array.astype("<u4") << 16).view("<f4")
        return array.reshape(entry.shape)

    def release(self) -> None:
        """Tell the kernel that the pages read so far are not needed soon; arrays stay valid and are read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
