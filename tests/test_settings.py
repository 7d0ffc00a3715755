"""Settings: file < environment < flags, typing errors named, secrets masked."""

from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.settings import Settings, flat_settings, load_settings, settings_sources, unknown_variables


@pytest.fixture(autouse=True)
def empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_win_over_environment_over_file(empty_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_world / "penstock.toml").write_text('data_dir = "from-file"\n[api]\nhost = "127.0.0.2"\nport = 1\n')
    monkeypatch.setenv("PENSTOCK_API__PORT", "2")
    settings = load_settings({"data_dir": Path("from-flag")})
    assert (settings.data_dir, settings.api.host, settings.api.port) == (Path("from-flag"), "127.0.0.2", 2)
    assert settings_sources({"data_dir": Path("from-flag")}) == {
        "data_dir": "flag",
        "api.host": "penstock.toml",
        "api.port": "environment",
    }


def test_unknown_key_in_the_file_is_refused_by_name(empty_world: Path) -> None:
    (empty_world / "penstock.toml").write_text("[api]\nprot = 1\n")
    with pytest.raises(ConfigError, match=r"api\.prot"):
        load_settings()


def test_broken_file_and_missing_named_file_are_clear(empty_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_world / "penstock.toml").write_text("[api\n")
    with pytest.raises(ConfigError, match=r"penstock\.toml"):
        load_settings()
    monkeypatch.setenv("PENSTOCK_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_settings()


def test_wrong_value_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_API__PORT", "many")
    with pytest.raises(ConfigError, match=r"api\.port"):
        load_settings()


def test_unknown_variables_are_found_at_every_level() -> None:
    environ = {
        "PENSTOCK_DATA_DIR": "x",
        "PENSTOCK_URL": "x",
        "PENSTOCK_DATA_DRI": "x",
        "PENSTOCK_API__PROT": "1",
        "HOME": "/",
    }
    assert unknown_variables(environ) == ["PENSTOCK_API__PROT", "PENSTOCK_DATA_DRI"]


def test_passwords_in_urls_are_not_shown() -> None:
    assert "hunter2" not in str(flat_settings(load_settings({"jobs": "redis://:hunter2@localhost"})))


def test_stores_are_in_the_data_folder_unless_named(empty_world: Path) -> None:
    assert Settings().ledger_url == f"sqlite:///{empty_world / 'penstock-data' / 'ledger.sqlite3'}"
    assert load_settings({"ledger": "memory://"}).ledger_url == "memory://"
