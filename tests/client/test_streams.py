"""Server-sent events: the parser, resuming, and the answer as it is written."""

from contextlib import closing
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client import Client
from penstock.client.questions import StreamedText
from penstock.client.sse import MAX_EVENT_BYTES, EventParser, ServerEvent
from penstock.errors import ProviderError, Unavailable
from penstock.types import Answer, JobEvent

ANSWER = Answer(text="Six hours [1].", found=True, citations=[], model="extractive", notes=[])
STREAM = {"content-type": "text/event-stream"}
ASKED = {**STREAM, "location": "/v1/jobs/job_1"}

WIRE = (
    b"retry: 1000\n\n: keep-alive\n\nid: 1\nevent: progress\ndata: {}\n\n"
    b"id: 2\r\nevent: delta\r\ndata: \xe4\xba\x95\r\ndata: two\r\n\r\ndata:bare\n\n"
)
EVENTS = [
    ServerEvent(id="1", type="progress", data="{}"),
    ServerEvent(id="2", type="delta", data="井\ntwo"),
    ServerEvent(id=None, type="message", data="bare"),
]


@given(st.lists(st.integers(0, len(WIRE)), max_size=8))
def test_events_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(cuts), len(WIRE)]
    pieces = [WIRE[start:end] for start, end in pairwise(edges)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


def test_an_endless_line_is_refused() -> None:
    parser = EventParser()
    assert list(parser.feed(b"x" * MAX_EVENT_BYTES)) == []
    with pytest.raises(ProviderError, match="larger than"):
        list(parser.feed(b"x"))


def event(seq: int, kind: str, **data: Any) -> bytes:
    body = msgspec.json.encode({**data, "attempt": data.get("attempt", 1)})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), body)


def job(state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "job_1",
        "kind": "question",
        "tenant": "default",
        "priority": "interactive",
        "state": state,
        "payload": {},
        **more,
    }


def test_events_of_a_job_end_with_its_final_state(run: Any, server: Any) -> None:
    events = event(1, "state", state="running") + event(2, "state", state="succeeded") + event(3, "state")
    server.say(raw=events, headers=STREAM)
    assert run(lambda client: client.job_events("job_1")) == [
        JobEvent(seq=1, type="state", data={"state": "running"}, attempt=1),
        JobEvent(seq=2, type="state", data={"state": "succeeded"}, attempt=1),
    ]


def test_a_broken_stream_goes_on_behind_the_last_event(run: Any, server: Any) -> None:
    server.say(raw=event(5, "delta", text="a"), headers=STREAM, cut=True)
    server.say(drop=True)
    server.refuse(503, "unavailable", headers={"retry-after": "0"})
    server.say(raw=event(6, "delta", text="b") + event(7, "state", state="failed"), headers=STREAM)
    assert [one.seq for one in run(lambda client: client.job_events("job_1", after=4))] == [5, 6, 7]
    assert [seen.headers.get("last-event-id") for seen in server.seen] == ["4", "5", "5", "5"]


def test_a_stream_that_keeps_breaking_is_given_up(run: Any, server: Any) -> None:
    for _ in range(3):
        server.say(raw=b": keep-alive\n\n", headers=STREAM)
    with pytest.raises(Unavailable, match="broke"):
        run(lambda client: client.job_events("job_1"))


def test_nothing_more_to_tell_is_the_end(run: Any, server: Any) -> None:
    server.say(raw=b"", status=204)
    assert run(lambda client: client.job_events("job_1", after=9)) == []


def test_an_answer_comes_in_pieces_and_then_whole(run: Any, server: Any) -> None:
    pieces = (
        event(1, "progress", stage="generate") + event(2, "delta", text="Six ") + event(3, "delta", text="hours [1].")
    )
    server.say(raw=pieces + event(4, "answer", answer={}), headers=ASKED)
    server.say(job("succeeded", result=ANSWER))
    assert run(lambda client: client.ask_stream("How long?")) == ["Six ", "hours [1].", ANSWER]


def test_a_broken_answer_goes_on_where_it_was(run: Any, server: Any) -> None:
    """The api process died; the worker went on."""
    server.say(raw=event(2, "delta", text="Six "), headers=ASKED, cut=True)
    server.say(raw=event(3, "delta", text="hours [1].") + event(4, "state", state="succeeded"), headers=STREAM)
    server.say(job("succeeded", result=ANSWER))
    assert run(lambda client: client.ask_stream("How long?")) == ["Six ", "hours [1].", ANSWER]
    assert (server.seen[1].path, server.seen[1].headers["last-event-id"]) == ("/v1/jobs/job_1/events", "2")


def test_a_question_that_the_server_gave_up_with_its_reader_is_asked_again(run: Any, server: Any) -> None:
    server.say(raw=event(2, "delta", text="Six "), headers=ASKED, cut=True)
    server.say(raw=b"", status=204)
    server.say(job("cancelled"))
    server.say(
        raw=event(1, "delta", text="Six hours") + event(2, "answer"), headers={**STREAM, "location": "/v1/jobs/j2"}
    )
    server.say(job("succeeded", result=ANSWER))
    assert run(lambda client: client.ask_stream("How long?")) == ["Six ", "hours", ANSWER]


def test_a_failed_question_raises_what_it_failed_with(run: Any, server: Any) -> None:
    server.say(raw=event(1, "error"), headers=ASKED)
    server.say(job("failed", error={"code": "provider_error", "message": "The model said no."}))
    with pytest.raises(ProviderError, match="said no"):
        run(lambda client: client.ask_stream("How long?"))


def test_ask_waits_on_when_the_server_waited_long_enough(run: Any, server: Any) -> None:
    server.say({"job_id": "job_1", "state": "running", "answer": None}, status=202)
    server.say(job("running"))
    server.say(job("succeeded", result=ANSWER))
    assert run(lambda client: client.ask("How long?")) == ANSWER


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ([("a", "Six "), ("a", "hours")], ["Six ", "hours"]),
        ([("a", "Six "), ("b", "S"), ("b", "ix hours")], ["Six ", "", "hours"]),
        ([("a", "Six "), ("b", "Seven hours"), ("b", " or so")], ["Six ", "", ""]),
    ],
)
def test_a_second_attempt_tells_only_what_goes_on(pieces: list[tuple[str, str]], told: list[str]) -> None:
    text = StreamedText()
    assert [text.add((who, 1), piece) for who, piece in pieces] == told


def test_leaving_a_stream_early_closes_its_connection(server: Any) -> None:
    server.say(raw=event(1, "delta", text="a") + event(2, "delta", text="b"), headers=STREAM)
    server.say({"ready": True})
    with Client(server.url) as client:
        with closing(client.job_events("job_1")) as events:
            assert next(events).seq == 1
        assert client.ready().ready
