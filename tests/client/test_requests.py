"""What is sent, what is tried again, and which error a refusal becomes; each on both clients."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.client import Client, ClientOptions, NewFile, NewText, field_errors
from penstock.errors import (
    ConfigError,
    Conflict,
    NotFound,
    Overloaded,
    PenstockError,
    ProviderError,
    StorageFull,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from penstock.types import Document, DocumentStatus, Job, JobState, Priority, Progress

JOB = Job(
    id="job_1",
    kind="question",
    tenant="default",
    priority=Priority.NORMAL,
    state=JobState.SUCCEEDED,
    payload={},
    failures=[],
)
DOCUMENT = Document(
    id="doc_1",
    tenant="default",
    collection_id="col_1",
    collection="default",
    name="a.txt",
    status=DocumentStatus.PENDING,
    version=1,
    version_id="ver_1",
    searchable_version=0,
    sha256="0" * 64,
    media_type="text/plain",
    size_bytes=3,
)


def test_a_record_comes_back_typed_and_unknown_fields_are_ignored(run: Any, server: Any) -> None:
    server.say({**msgspec.to_builtins(JOB), "a_field_of_tomorrow": 1})
    assert run(lambda client: client.get_job("job_1")) == JOB
    [seen] = server.seen
    assert (seen.method, seen.path) == ("GET", "/v1/jobs/job_1")
    assert seen.headers["authorization"] == "Bearer secret"


def test_ids_are_quoted_into_the_path(run: Any, server: Any) -> None:
    server.refuse(404, "not_found")
    with pytest.raises(NotFound):
        run(lambda client: client.get_job("../collections?x"))
    assert server.seen[0].path == "/v1/jobs/..%2Fcollections%3Fx"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "not_found", NotFound),
        (413, "too_large", TooLarge),
        (415, "unsupported_media", UnsupportedMedia),
        (401, "unauthorized", Unauthorized),
        (409, "conflict", Conflict),
        (507, "storage_full", StorageFull),
        (409, "a_code_of_tomorrow", Conflict),
        (500, "internal", PenstockError),
    ],
)
def test_a_refusal_becomes_its_error(run: Any, server: Any, status: int, code: str, error: type[PenstockError]) -> None:
    server.refuse(status, code)
    with pytest.raises(error, match=r"Why\.") as caught:
        run(lambda client: client.get_job("job_1"))
    assert caught.value.code == code
    assert len(server.seen) == 1


def test_a_refusal_that_is_no_problem_json_goes_by_its_status(run: Any, server: Any) -> None:
    server.say(raw=b"<html>Bad Gateway</html>", status=502)
    with pytest.raises(ProviderError, match="HTTP 502"):
        run(lambda client: client.get_job("job_1"))


def test_a_reply_that_is_not_ours_is_an_error_and_not_a_crash(run: Any, server: Any) -> None:
    server.say(raw=b"<html>Hello</html>")
    with pytest.raises(ProviderError, match="Is the URL that of a Penstock server") as caught:
        run(lambda client: client.get_job("job_1"))
    assert caught.value.code == "bad_reply"


def test_refused_for_now_is_tried_again_after_what_the_server_says(run: Any, server: Any) -> None:
    server.refuse(429, "overloaded", headers={"retry-after": "0"})
    server.refuse(503, "unavailable", headers={"retry-after": "0"})
    server.say(JOB)
    assert run(lambda client: client.get_job("job_1")) == JOB
    assert len(server.seen) == 3


def test_retries_are_bounded(run: Any, server: Any) -> None:
    for _ in range(4):
        server.refuse(429, "overloaded", headers={"retry-after": "0"})
    with pytest.raises(Overloaded):
        run(lambda client: client.get_job("job_1"))
    assert len(server.seen) == 4
    for _ in range(3):
        server.say(drop=True)
    with pytest.raises(Unavailable):
        run(lambda client: client.get_job("job_1"))
    assert len(server.seen) == 7


def test_a_long_retry_after_is_told_and_not_waited_for(run: Any, server: Any) -> None:
    server.refuse(429, "overloaded", headers={"retry-after": "600"})
    with pytest.raises(Overloaded) as caught:
        run(lambda client: client.get_job("job_1"))
    assert caught.value.retry_after_s == 600
    assert len(server.seen) == 1


def test_the_server_may_forbid_to_try_again(run: Any, server: Any) -> None:
    server.refuse(503, "unavailable", headers={"retry-after": "0", "x-should-retry": "false"})
    with pytest.raises(Unavailable):
        run(lambda client: client.get_job("job_1"))
    assert len(server.seen) == 1


def test_a_broken_connection_is_tried_again_where_that_is_harmless(run: Any, server: Any) -> None:
    server.say(drop=True)
    server.say(JOB, cut=True)
    server.say(JOB)
    assert run(lambda client: client.get_job("job_1")) == JOB


def test_a_broken_connection_is_not_tried_again_where_it_might_do_harm(run: Any, server: Any) -> None:
    server.say(drop=True)
    with pytest.raises(Unavailable, match="broke"):
        run(lambda client: client.create_collection("new"))
    assert len(server.seen) == 1


def test_nobody_there_is_said_with_what_to_do() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        options = ClientOptions(url=url, attempts=2, first_pause_s=0.001)
        with Client(options=options) as client, pytest.raises(Unavailable, match="penstock serve") as caught:
            client.ready()
    assert caught.value.code == "unreachable"


def test_an_upload_is_sent_again_with_the_same_key_and_the_whole_file(run: Any, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "bericht.txt"
    path.write_bytes(b"content of the file")
    server.say(drop=True)
    server.refuse(429, "overloaded", headers={"retry-after": "0"})
    server.say({"documents": [{"document": DOCUMENT, "job_id": "job_1", "created": True}]}, status=202)
    files = [NewFile(name="规范/第一.txt", content=path, metadata={"year": 2025}), NewFile(name="b", content=b"bytes")]
    [accepted] = run(lambda client: client.upload(files, collection="reports", priority=Priority.NORMAL))
    assert accepted.document == DOCUMENT
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1
    for seen in server.seen:
        assert b"content of the file" in seen.body
        assert "规范/第一.txt".encode() in seen.body
        assert b'[{"year":2025},{}]' in seen.body
        assert b"reports" in seen.body
        assert b"normal" in seen.body


def test_texts_go_as_json(run: Any, server: Any) -> None:
    server.say({"documents": []}, status=202)
    assert run(lambda client: client.add_texts([NewText(name="n", text="t")])) == []
    body = msgspec.json.decode(server.seen[0].body)
    assert body["documents"] == [{"name": "n", "text": "t", "media_type": "text/plain", "metadata": {}}]


def test_every_refused_file_is_told(run: Any, server: Any) -> None:
    errors = [{"loc": ["body", 1, "b.exe"], "detail": "An executable.", "code": "unsupported_media"}]
    server.refuse(415, "unsupported_media", errors=errors)
    with pytest.raises(UnsupportedMedia) as caught:
        run(lambda client: client.upload([NewFile(name="a", content=b""), NewFile(name="b.exe", content=b"MZ")]))
    [refused] = field_errors(caught.value)
    assert (refused.loc[1], refused.detail, refused.code) == (1, "An executable.", "unsupported_media")


def test_pages_are_followed_to_the_end(run: Any, server: Any) -> None:
    server.say({"documents": [DOCUMENT, DOCUMENT], "cursor": "next one"})
    server.say({"documents": [DOCUMENT], "cursor": None})
    statuses = [DocumentStatus.FAILED, DocumentStatus.CANCELLED]
    assert run(lambda client: client.iter_documents(collection="c", statuses=statuses)) == [DOCUMENT] * 3
    assert [seen.path for seen in server.seen] == [
        "/v1/documents?collection=c&status=failed&status=cancelled&limit=1000",
        "/v1/documents?collection=c&status=failed&status=cancelled&cursor=next+one&limit=1000",
    ]


def test_waiting_for_a_document_sees_its_progress_and_its_end(run: Any, server: Any) -> None:
    server.say({"document": DOCUMENT, "job": {**msgspec.to_builtins(JOB), "progress": {"stage": "embed"}}})
    server.say({"document": {**msgspec.to_builtins(DOCUMENT), "status": "done"}, "job": JOB})
    document = run(lambda client: client.wait_document("doc_1"))
    assert document.status is DocumentStatus.DONE


def test_a_pending_document_carries_its_jobs_progress(run: Any, server: Any) -> None:
    server.say({"document": DOCUMENT, "job": {**msgspec.to_builtins(JOB), "progress": {"stage": "embed", "done": 3}}})
    assert run(lambda client: client.get_document("doc_1")).progress == Progress(stage="embed", done=3)


def test_not_ready_is_an_answer_and_no_error(run: Any, server: Any) -> None:
    server.say({"ready": False, "checks": {"workers": "no worker is running"}}, status=503)
    readiness = run(lambda client: client.ready())
    assert not readiness.ready
    assert readiness.checks["workers"] == "no worker is running"


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_is_none_is_told_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="copy it again") as caught:
        ClientOptions(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:7733", "ftp://x", "http://", "http://[::1"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="URL"):
        Client(url)


def test_the_environment_says_where_and_who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_URL", "http://server.example:80/penstock/")
    monkeypatch.setenv("PENSTOCK_API_KEY", "key")
    options = ClientOptions()
    assert options.url == "http://server.example:80/penstock"
    assert options.headers["authorization"] == "Bearer key"
    assert "key" not in repr(options)


def test_the_client_needs_nothing_of_the_server() -> None:
    """With every third-party package blocked but those that the client declares."""
    program = """
import importlib.abc, sys
ALLOWED = {"penstock", "httpx", "httpcore", "h11", "h2", "anyio", "idna", "certifi", "sniffio", "msgspec"}
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED | sys.stdlib_module_names and not top.startswith("_"):
            raise ImportError(f"{name} is not what the client declares")
sys.meta_path.insert(0, Block())
import penstock.client
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("penstock.")}
assert rooms == {"client", "errors", "types"}, rooms
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def test_no_proxy_is_asked_for_this_machine(run: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.say(JOB)
    assert run(lambda client: client.get_job("job_1")) == JOB
