"""`penstock serve` with real processes: ready, killed, stopped, refused."""

import json
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)  # each starts several processes, one after the other

Start = Callable[..., Any]
DOCUMENTS = 60


def texts(count: int) -> list[dict[str, str]]:
    return [
        {"name": f"note-{i}.md", "text": f"# Note {i}\n\nStreet lamp {i} must be repaired within {i + 2} days.\n\n" * 8}
        for i in range(count)
    ]


def upload(server: Any, documents: Iterable[dict[str, str]]) -> None:
    reply = server.http.post("/v1/documents", json={"documents": list(documents)})
    assert reply.status_code == 202, reply.text


def test_documents_go_in_and_answers_come_out(start_server: Start) -> None:
    server = start_server().wait_ready()
    assert server.http.get("/readyz").status_code == 200
    upload(server, texts(5))
    assert {status for status, _ in server.wait_settled().values()} == {"done"}
    reply = server.http.post("/v1/questions", json={"question": "When must street lamp 3 be repaired?", "wait_s": 20})
    answer = reply.json()["answer"]
    assert answer["found"]
    assert "within 5 days" in answer["text"]
    assert "note-3.md" in [citation["document_name"] for citation in answer["citations"]]
    assert server.stop() == 0


@pytest.mark.case(1)
def test_worker_killed_during_ingest_loses_and_doubles_nothing(start_server: Start) -> None:
    server = start_server().wait_ready()
    upload(server, texts(DOCUMENTS))
    server.kill("worker")
    upload(server, texts(DOCUMENTS))
    settled = server.wait_settled()
    assert len(settled) == DOCUMENTS
    assert {status for status, _ in settled.values()} == {"done"}
    assert len({chunks for _, chunks in settled.values()}) == 1
    assert {"api", "worker"} <= set(server.children())


@pytest.mark.case(3)
def test_everything_killed_during_ingest_is_finished_after_restart(start_server: Start) -> None:
    server = start_server().wait_ready()
    upload(server, texts(DOCUMENTS))
    server.kill_everything()
    settled = start_server().wait_ready().wait_settled()
    assert len(settled) == DOCUMENTS
    assert {status for status, _ in settled.values()} == {"done"}


def test_api_killed_is_back_on_the_same_port(start_server: Start) -> None:
    server = start_server().wait_ready()
    before = server.children()["api"]
    server.kill("api")
    assert server.http.get("/healthz").status_code == 200  # the supervisor holds the socket: the call waits
    assert server.children()["api"] != before


@pytest.mark.case(15)
def test_a_lost_job_store_is_rebuilt_from_the_ledger(start_server: Start, tmp_path: Path) -> None:
    server = start_server().wait_ready()
    upload(server, texts(DOCUMENTS))
    server.kill_everything()
    for file in (tmp_path / "data").glob("jobs.sqlite3*"):
        file.unlink()
    settled = start_server().wait_ready().wait_settled()
    assert len(settled) == DOCUMENTS
    assert {status for status, _ in settled.values()} == {"done"}


@pytest.mark.case(8)
def test_sigterm_under_load_exits_in_order_and_leaves_sound_files(start_server: Start, tmp_path: Path) -> None:
    server = start_server().wait_ready()
    upload(server, texts(DOCUMENTS))
    assert server.stop() == 0
    for name in ("ledger", "jobs"):
        with sqlite3.connect(tmp_path / "data" / f"{name}.sqlite3") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


@pytest.mark.case(8)
def test_a_second_sigterm_exits_at_once(start_server: Start) -> None:
    server = start_server(environ={"PENSTOCK_WORKER__GRACE_S": "1000"}).wait_ready()
    upload(server, texts(DOCUMENTS))
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=100)


def test_children_end_when_the_supervisor_is_killed(start_server: Start, tmp_path: Path) -> None:
    server = start_server().wait_ready()
    server.process.kill()
    again = start_server().wait_ready()  # the folder's lock is free, and the old api must not hold the stores
    assert again.http.get("/readyz").status_code == 200


def test_second_serve_on_the_same_folder_is_refused_by_name(start_server: Start, tmp_path: Path) -> None:
    start_server().wait_ready()
    second = start_server()
    assert second.process.wait(timeout=100) == 1
    assert str(tmp_path / "data") in second.errors()


def test_taken_port_is_refused_by_name(start_server: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start_server("--port", str(port))
        assert server.process.wait(timeout=100) == 1
    assert f"127.0.0.1:{port}" in server.errors()


@pytest.mark.case(19)
@pytest.mark.parametrize("name", ["ledger.sqlite3", "jobs.sqlite3"])
def test_damaged_database_is_refused_by_name(start_server: Start, tmp_path: Path, name: str) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir()
    file.write_bytes(b"this is no database, and never was one" * 100)
    server = start_server()
    assert server.process.wait(timeout=100) == 1
    assert str(file) in server.errors()


@pytest.mark.case(33)
def test_open_address_without_a_key_is_refused(start_server: Start) -> None:
    server = start_server("--host", "0.0.0.0")
    assert server.process.wait(timeout=100) == 1
    assert "penstock keys create" in server.errors()


def test_missing_model_stops_the_start_with_the_reason(start_server: Start, tmp_path: Path) -> None:
    environ = {"PENSTOCK_MODELS__EMBEDDING": str(tmp_path / "nowhere"), "PENSTOCK_MODELS__DOWNLOAD": "false"}
    server = start_server(environ=environ)
    assert server.process.wait(timeout=100) == 1
    assert "nowhere" in server.errors()


def test_sse_answer_streams(start_server: Start) -> None:
    server = start_server().wait_ready()
    upload(server, texts(2))
    server.wait_settled()
    body = {"question": "When must street lamp 1 be repaired?", "stream": True}
    with server.http.stream("POST", "/v1/questions", json=body) as reply:
        lines = list(reply.iter_lines())
    assert any(line == "event: delta" for line in lines)
    answer = next(
        json.loads(line[6:]) for line, before in zip(lines[1:], lines, strict=False) if before == "event: answer"
    )
    assert "answer" in answer or "text" in answer
