"""The commands that work on this machine's settings and stores: `config`, `keys`, `models`, `doctor`, `reindex`."""

import socket
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)


def test_config_says_where_each_value_comes_from(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[api]\nport = 8080\n[generator]\napi_key = "very secret"\n')
    monkeypatch.setenv("PENSTOCK_WORKER__CONCURRENCY", "7")
    monkeypatch.setenv("PENSTOCK_WROKER__CONCURRENCY", "7")
    result = cli("config", "show", "--sources", "--json")
    assert result.json["api.port"] == {"value": 8080, "source": "penstock.toml"}
    assert result.json["worker.concurrency"] == {"value": 7, "source": "environment"}
    assert result.json["api.host"] == {"value": "127.0.0.1", "source": "default"}
    assert "very secret" not in result.out
    assert cli("config", "show", "--json").json["api.port"] == 8080
    shown = cli("config", "show")
    assert "api.port\t8080\n" in shown.out
    assert "PENSTOCK_WROKER__CONCURRENCY" in shown.err


def test_a_wrong_setting_is_told(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_API__PORT", "many")
    result = cli("config", "show", "--json")
    assert result.status == 2
    assert "api.port" in result.json["error"]["message"]


def test_keys_are_made_listed_and_revoked(cli: Any) -> None:
    made = cli("keys", "create", "laptop", "--read-only", "--json").json
    assert made["key"]["scopes"] == ["read"]
    listed = cli("keys", "list")
    assert made["secret"] not in listed.out
    assert listed.out.splitlines()[1].split("\t")[1:4] == ["laptop", "default", "read"]
    assert cli("keys", "revoke", made["key"]["id"]).status == 0
    assert [key["revoked"] for key in cli("keys", "list", "--json").json] == [True]
    second = cli("keys", "create", "phone")
    assert len(second.out.split()) == 1


def test_revoking_a_key_that_is_not_there_fails(cli: Any) -> None:
    assert cli("keys", "revoke", "key_nothing").status == 1


def test_models_are_shown_with_their_place(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MODELS__ALIASES", '{"other": "./nowhere"}')
    monkeypatch.setenv("PENSTOCK_MODELS__IMAGE_EMBEDDERS", '{"clip": {"model": "./no-clip"}}')
    monkeypatch.setenv("PENSTOCK_GENERATOR__PRESET", "ollama")
    default, other, clip, writer = cli("models", "--url", "http://127.0.0.1:9", "--json").json
    assert (clip["name"], clip["kind"], clip["loaded"]) == ("clip", "image", "")
    assert (writer["kind"], writer["device"], writer["where"]) == ("generator (default)", "remote", "remote")
    assert (default["name"], default["preloaded"]) == ("default", "yes")
    assert Path(default["where"]).is_dir()
    assert other["weights"] == ""


def test_doctor_finds_a_sound_machine_sound(cli: Any, tmp_path: Path) -> None:
    result = cli("doctor", "--json")
    checks = {check["name"]: check for check in result.json["checks"]}
    assert not [check for check in checks.values() if check["level"] == "fail" and check["name"] != "server"]
    assert checks["ledger"]["found"] == "made at first start"
    assert not (tmp_path / "penstock-data").exists()


def test_doctor_opens_what_is_there(cli: Any) -> None:
    cli("keys", "create", "laptop")
    checks = {check["name"]: check["found"] for check in cli("doctor", "--json").json["checks"]}
    assert checks["ledger"] == checks["jobs"] == checks["index"] == checks["blobs"] == "opens and answers"


def test_doctor_names_what_fails_and_what_to_do(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "penstock-data").mkdir()
    (tmp_path / "penstock-data" / "ledger.sqlite3").write_bytes(b"this is no database, " * 100)
    monkeypatch.setenv("PENSTOCK_MODELS__EMBEDDING", "./no-model")
    monkeypatch.setenv("PENSTOCK_MODELS__DOWNLOAD", "false")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("PENSTOCK_API__PORT", str(taken.getsockname()[1]))
        taken.settimeout(0)
        taken.listen(0)
        result = cli("doctor", "--json")
    assert result.status == 1
    failing = {check["name"]: check["advice"] for check in result.json["checks"] if check["level"] == "fail"}
    assert "ledger.sqlite3" in failing["ledger"]
    assert "no-model" in failing["weights"]


def test_doctor_sees_a_running_server(cli: Any, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_API__PORT", server_url.rpartition(":")[2])
    result = cli("doctor")
    assert "running and ready on 127.0.0.1" in result.out


def test_reindex_rebuilds_what_can_be_searched(
    cli: Any, examples: Path, data_dir: Path, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cli("search", "manhole", "--json").json["hits"]
    result = cli("reindex", "default", "--data-dir", data_dir, "--json")
    assert result.status == 0, result.err
    assert result.json["chunks"] == cli("collections", "show", "default", "--json").json["chunks"]
    after = cli("search", "manhole", "--json").json["hits"]
    assert [hit["chunk"]["id"] for hit in after] == [hit["chunk"]["id"] for hit in before]
    assert cli("reindex", "nowhere", "--data-dir", data_dir).status == 1


def test_reindex_without_a_worker_says_so(cli: Any, tmp_path: Path) -> None:
    result = cli("reindex", "default")
    assert result.status == 1
