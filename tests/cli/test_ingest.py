"""`penstock ingest` against a real server: what it takes, what it says, what it leaves."""

import os
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.files import batches, find_files
from penstock.client import NewFile
from penstock.errors import InvalidInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ["b.txt", "a.md", "deep/er/c.txt", ".hidden.txt", ".git/config", "deep/.env"]:
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"The file {name} speaks of lamps.")
    return tmp_path / "docs"


def test_folders_are_searched_and_hidden_files_left_out(folder: Path) -> None:
    assert [file.name for file in find_files([folder])] == ["a.md", "b.txt", "deep/er/c.txt"]
    assert [file.name for file in find_files([folder / "b.txt", folder / "deep"])] == ["b.txt", "er/c.txt"]


@pytest.mark.case(29)
def test_links_that_lead_out_of_a_folder_are_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("Not for others.")
    (folder / "deep" / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "in.txt").symlink_to("b.txt")
    (folder / "loop").symlink_to(".")
    (folder / "nowhere.txt").symlink_to("gone")
    assert [file.name for file in find_files([folder])] == ["a.md", "b.txt", "in.txt", "deep/er/c.txt"]
    assert [file.name for file in find_files([folder / "deep" / "out.txt"])] == ["out.txt"]


def test_a_name_that_is_no_utf8_is_made_one(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    assert [file.name for file in find_files([tmp_path])] == ["caf\ufffd.txt"]


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (["*.txt"], [], ["b.txt", "deep/er/c.txt"]),
        ([], ["deep/*"], ["a.md", "b.txt"]),
        (["*.md", "c.*"], ["a*"], ["deep/er/c.txt"]),
    ],
)
def test_patterns_choose(folder: Path, include: list[str], exclude: list[str], names: list[str]) -> None:
    assert [file.name for file in find_files([folder], include, exclude)] == names


def test_two_files_that_would_be_one_document_are_refused(folder: Path) -> None:
    (folder / "deep" / "b.txt").write_text("other")
    with pytest.raises(InvalidInput, match=r"both become the document 'b\.txt'"):
        find_files([folder, folder / "deep"])
    assert len(find_files([folder, folder])) == 4


def test_batches_are_bounded_by_number_and_size() -> None:
    files = [NewFile(name=str(number), content=b"x" * length) for number, length in enumerate([1, 1, 1, 9, 1, 5])]
    assert [[file.name for file in batch] for batch in batches(files, max_files=2, max_bytes=6)] == [
        ["0", "1"],
        ["2"],
        ["3"],
        ["4", "5"],
    ]


def test_a_folder_becomes_searchable_and_a_second_run_changes_nothing(cli: Any, server: str, folder: Path) -> None:
    assert cli("collections", "create", "lamps").status == 0
    first = cli("ingest", folder, "--collection", "lamps", "--json")
    assert first.status == 0
    assert (first.json["done"], first.json["failed"], first.json["chunks"]) == (3, 0, 3)
    assert first.err == ""
    second = cli("ingest", folder, "--collection", "lamps", "--json")
    assert (second.json["done"], second.json["unchanged"], second.json["chunks"]) == (0, 3, 0)
    (folder / "a.md").write_text("Other words.")
    third = cli("ingest", folder, "--collection", "lamps")
    assert third.out.startswith("3 documents: 1 done, 2 unchanged; 1 chunks in ")
    listed = cli("documents", "list", "--collection", "lamps", "--json").json
    assert {one["name"]: one["version"] for one in listed} == {"a.md": 2, "b.txt": 1, "deep/er/c.txt": 1}


def test_unfit_files_are_told_and_do_not_keep_the_others_out(cli: Any, server: str, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("Good.")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nthis is no PDF")
    (tmp_path / "program").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    assert cli("collections", "create", "mixed").status == 0
    result = cli("ingest", tmp_path, "--collection", "mixed", "--json")
    assert result.status == 1
    assert (result.json["done"], result.json["failed"]) == (1, 3)
    reasons = {failure["name"]: failure["code"] for failure in result.json["failures"]}
    assert reasons["broken.pdf"] == "parse_failed"
    assert reasons.keys() == {"empty.txt", "broken.pdf", "program"}
    for name in reasons:
        assert f"failed: {name}: " in result.err


def test_a_file_that_cannot_be_read_is_told(cli: Any, server: str, tmp_path: Path) -> None:
    good = NewFile(name="good.txt", content=b"Good.")
    gone = NewFile(name="gone.txt", content=tmp_path / "gone.txt")
    import asyncio

    from penstock.cli.ingestion import Ingestion
    from penstock.client import AsyncClient

    async def run() -> Any:
        async with AsyncClient(server) as client:
            return await Ingestion(client, "default").run([good, gone])

    report = asyncio.run(run())
    assert [(failure.name, failure.code) for failure in report.failures] == [("gone.txt", "unreadable")]


def test_more_documents_than_are_looked_up_one_by_one(cli: Any, server: str, tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"{number}.txt").write_text(f"Lamp {number} is out.")
    assert cli("collections", "create", "many").status == 0
    result = cli("ingest", tmp_path, "--collection", "many", "--json")
    assert (result.json["done"], result.json["chunks"]) == (120, 120)


def test_without_waiting_it_only_uploads(cli: Any, server: str, folder: Path) -> None:
    assert cli("collections", "create", "later").status == 0
    result = cli("ingest", folder, "--collection", "later", "--no-wait")
    assert (result.status, result.out) == (0, "")
    assert len(cli("documents", "list", "--collection", "later", "--json").json) == 3


def test_nothing_to_ingest_is_wrong_usage(cli: Any, server: str, tmp_path: Path) -> None:
    assert cli("ingest", tmp_path).status == 2
    assert cli("ingest", tmp_path / "nowhere").status == 2


def test_an_unknown_collection_is_said(cli: Any, server: str, folder: Path) -> None:
    result = cli("ingest", folder, "--collection", "nowhere")
    assert result.status == 1
    assert "nowhere" in result.err
