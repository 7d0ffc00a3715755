"""Which device torch runs on, and how its errors are told apart. Needs the extra `torch` only where one is used."""

import importlib
import importlib.util
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from penstock.errors import ConfigError, DataError, MissingDependency, OutOfMemory, PenstockError, Unavailable

GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""One of them is there on a Linux with a GPU that torch may use: NVIDIA's, that of WSL, AMD's."""

FULL = ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")

T = TypeVar("T")


def import_torch() -> Any:
    """Raises MissingDependency where the extra is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingDependency(
            'This model or device needs torch, which is not installed: pip install "penstock[torch]".'
        ) from error


def find_device(wanted: str) -> str:
    """`wanted` is auto, cpu, cuda, cuda:N or mps; auto takes cuda, then mps, then cpu.

    torch is imported only where a GPU may be. Raises ConfigError for a device that is not there.
    """
    if wanted == "cpu" or (wanted == "auto" and not may_have_gpu()):
        return "cpu"
    torch = import_torch()
    found = [name for name, there in (("cuda", torch.cuda.is_available()), ("mps", has_mps(torch))) if there]
    if wanted == "auto":
        return next(iter(found), "cpu")
    if wanted.partition(":")[0] not in found:
        raise ConfigError(f"models.device is {wanted!r}, but torch finds {' and '.join(found) or 'no GPU'} here.")
    return wanted


def may_have_gpu() -> bool:
    """Whether it is worth the seconds to import torch and ask."""
    if importlib.util.find_spec("torch") is None:
        return False
    return platform.system() != "Linux" or any(Path(file).exists() for file in GPU_FILES)


def has_mps(torch: Any) -> bool:
    return bool(torch.backends.mps.is_available())


def pick_dtype(torch: Any, device: str, precision: str) -> Any:
    """auto: 16 bits on a GPU (bfloat16 where it has that), 32 on a processor."""
    named = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
    if precision in named:
        return named[precision]
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device == "mps" else torch.float32


def mapped(error: RuntimeError | ValueError) -> OutOfMemory | Unavailable:
    """The error of ours that torch's stands for; it does not hold on to torch's, whose frames hold the tensors."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = lines[0][:300]
    if type(error).__name__ == "OutOfMemoryError" or any(word in str(error).lower() for word in FULL):
        return OutOfMemory(f"The device has no memory left: {told}")
    return Unavailable(f"The model failed: {told}")


def loading(load: Callable[[], T], folder: Path) -> T:
    """What `load` gives. Raises OutOfMemory when the device does not hold it, DataError when the files do not fit."""
    failure: PenstockError
    try:
        return load()
    except (RuntimeError, ValueError) as error:
        failure = mapped(error)
    if isinstance(failure, OutOfMemory):
        raise failure
    raise DataError(f"The network in {folder} cannot be built: {failure} Get its files again.")
