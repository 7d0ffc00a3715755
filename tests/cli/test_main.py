"""What every command has in common: start, help, exit status, JSON."""

import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from penstock.cli.main import COMMANDS
from penstock.cli.output import age, count, size


def test_help_names_every_command_and_imports_none(cli: Any) -> None:
    program = """
import sys
sys.argv = ["penstock", "--help"]
from penstock.cli.main import main
try:
    main()
except SystemExit:
    pass
heavy = {"fastapi", "pydantic", "sqlalchemy", "lancedb", "numpy", "openvino", "httpx"} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(cli: Any, name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    assert hasattr(import_module(module), attribute)
    result = cli(name, "--help")
    assert result.status == 0
    assert "Usage: penstock" in result.out


@pytest.mark.parametrize(
    "words", [["ask"], ["ask", "why", "--limit", "0"], ["jobs", "cancel"], ["documents", "list", "-x"], ["nonsense"]]
)
def test_wrong_usage_is_exit_status_2(cli: Any, words: list[str]) -> None:
    result = cli(*words)
    assert result.status == 2
    assert result.err
    assert not result.out


@pytest.mark.parametrize(
    "words",
    [
        ["ask", "why"],
        ["search", "why"],
        ["documents", "list"],
        ["collections", "list"],
        ["jobs", "list"],
        ["queues"],
        ["workers"],
        ["ingest", __file__],
    ],
)
def test_no_server_is_exit_status_3_and_says_how_to_start_one(cli: Any, words: list[str]) -> None:
    result = cli(*words, "--url", "http://127.0.0.1:1", "--json")
    assert result.status == 3
    assert "penstock serve" in result.err
    assert result.json["error"]["code"] == "unreachable"


def test_a_url_that_is_none_is_wrong_usage(cli: Any) -> None:
    assert cli("queues", "--url", "localhost").status == 2


def test_version(cli: Any) -> None:
    assert cli("--version").out.count(".") == 2


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(1, "job"), "1 job"),
        (count(2067, "job"), "2,067 jobs"),
        (age(4.2), "4 s"),
        (age(600), "10 min"),
        (age(100_000), "28 h"),
        (age(200_000), "2 d"),
        (size(0), "0 B"),
        (size(1_234_567), "1.23 MB"),
        (size(5e12), "5e+03 GB"),
    ],
)
def test_numbers_for_people(shown: str, expected: str) -> None:
    assert shown == expected
