"""`ask`, `search` and what shows the server's state, over the example documents."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

QUESTIONS = [
    msgspec.json.decode(line)
    for line in (Path(__file__).parents[2] / "examples" / "questions.jsonl").read_text("utf-8").splitlines()
]


def test_the_example_questions_are_answered_from_the_right_documents(cli: Any, examples: Path) -> None:
    """Quoting sentences finds the right document always, and the very words mostly."""
    words_missed = []
    for question in QUESTIONS:
        if question["answer"] is None:
            continue
        answer = cli("ask", question["question"], "--json").json
        assert answer["found"], question
        assert question["document"] in [citation["document_name"] for citation in answer["citations"]], question
        if squeezed(question["answer"]) not in squeezed(answer["text"]):
            words_missed.append(question["id"])
    assert len(words_missed) <= 1, words_missed


@pytest.mark.parametrize("question", [one for one in QUESTIONS if not one["answer"]], ids=lambda one: str(one["id"]))
def test_what_no_document_holds_is_not_found(cli: Any, examples: Path, question: Any) -> None:
    answer = cli("ask", question["question"], "--json").json
    assert not answer["found"]


def test_an_answer_for_people(cli: Any, examples: Path) -> None:
    result = cli("ask", "How long is body camera footage kept before it is erased?")
    assert result.status == 0
    text, _, citations = result.out.partition("\n\n")
    assert "31 days" in text
    assert re.search(r"^\[\d\] operations-handbook\.pdf, page 2, Clearbay", citations, re.MULTILINE)
    assert "“Body camera footage is kept for 31 days" in citations
    assert "total" in result.err


def test_an_image_that_no_model_can_see_is_said_to_be_unread(cli: Any, examples: Path, tmp_path: Path) -> None:
    image = tmp_path / "sign.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    result = cli("ask", "How long is body camera footage kept before it is erased?", "--image", str(image))
    assert "31 days" in result.out
    assert result.out.count("The image was not read") == 1
    assert "not read" not in result.err
    assert cli("ask", "Why?", "--image", str(tmp_path / "missing.png")).status == 2


def test_search_shows_passages_with_their_place(cli: Any, examples: Path) -> None:
    result = cli("search", "water level at which the underpass is closed", "--limit", "3")
    assert "operations-handbook.pdf, page" in result.out
    found = cli("search", "占道经营 罚款", "--limit", "2", "--mode", "fulltext", "--json").json
    assert len(found["hits"]) == 2
    assert found["hits"][0]["score"] >= found["hits"][1]["score"]


def test_a_collection_that_is_not_there_is_said(cli: Any, server: str) -> None:
    result = cli("ask", "Why?", "--collection", "nowhere", "--json")
    assert result.status == 1
    assert result.json["error"]["code"] == "not_found"


def test_documents_are_listed_shown_and_deleted(cli: Any, server: str, tmp_path: Path) -> None:
    (tmp_path / "doomed.txt").write_text("A short life.")
    cli("collections", "create", "doomed")
    cli("ingest", tmp_path, "-c", "doomed")
    [document] = cli("documents", "list", "--collection", "doomed", "--status", "done", "--json").json
    assert cli("documents", "list", "--collection", "doomed").out.splitlines()[1].split("\t")[1] == "doomed.txt"
    assert cli("documents", "show", document["id"], "--json").json["sha256"] == document["sha256"]
    assert "A short life." in cli("documents", "chunks", document["id"]).out
    assert cli("documents", "delete", document["id"]).status == 0
    assert cli("documents", "show", document["id"]).status == 1
    assert cli("collections", "show", "doomed", "--json").json["documents"] == 0
    assert cli("collections", "delete", "doomed", "--yes").status == 0
    assert "doomed" not in [one["name"] for one in cli("collections", "list", "--json").json]


def test_jobs_are_listed_and_followed(cli: Any, examples: Path) -> None:
    cli("ask", "How many cones?", "--json")
    [job] = cli("jobs", "list", "--kind", "question", "--limit", "1", "--json").json
    assert cli("jobs", "show", job["id"], "--json").json["state"] == "succeeded"
    assert "succeeded" in cli("jobs", "events", job["id"]).out.splitlines()[-1]
    assert cli("jobs", "cancel", job["id"], "--json").json[0]["state"] == "succeeded"
    refused = cli("jobs", "retry", job["id"], "--json")
    assert (refused.status, refused.json["error"]["code"]) == (1, "conflict")


def test_jobs_are_changed_in_bulk(cli: Any, server: str, tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    cli("collections", "create", "bulk")
    assert cli("ingest", tmp_path, "-c", "bulk").status == 1
    changed = cli("jobs", "retry", "--all", "--state", "failed", "--kind", "ingest", "--yes", "--json").json
    assert changed["changed"] >= 1
    assert cli("jobs", "cancel", "--all", "--kind", "nothing", "--yes", "--json").json == {"matched": 0, "changed": 0}


def test_queues_and_workers_are_shown(cli: Any, server: str) -> None:
    assert [queue["priority"] for queue in cli("queues", "--json").json] == ["interactive", "normal", "bulk"]
    assert cli("queues").out.splitlines()[1].startswith("interactive\t0\t")
    [worker] = cli("workers", "--json").json
    assert worker["ready"]
    assert str(worker["pid"]) in cli("workers").out


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)
