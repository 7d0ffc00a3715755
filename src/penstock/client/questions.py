"""Verbs that ask: search, ask, and ask with the answer as it is written."""

import base64
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.client.documents import DEFAULT_COLLECTION
from penstock.client.flow import Call, Effect, Emit, Flow, Stream
from penstock.client.jobs import get_job, is_end, job_event, wait_job
from penstock.client.options import ClientOptions
from penstock.client.problems import failure_error
from penstock.client.records import QuestionReply, SearchResult
from penstock.client.requests import request
from penstock.client.sse import EventReader
from penstock.client.verb import stream_verb, verb
from penstock.errors import DeadlineExceeded, PenstockError, ProviderError
from penstock.types import JSON, Answer, Job, JobState

Image: TypeAlias = bytes | Path | str
"""An image's bytes, the file that holds it, or its URL (http, https, or `data:`)."""

LONGEST_WAIT_S = 55.0
"""What one request may wait at most; below the idle time-outs of common proxies (60 s)."""


class QuestionVerbs:
    """A mix-in of both clients."""

    options: ClientOptions

    @verb
    def search(
        self,
        query: str = "",
        *,
        collection: str = DEFAULT_COLLECTION,
        limit: int = 10,
        mode: Literal["fused", "dense", "fulltext"] = "fused",
        filter: JSON = None,  # noqa: A002 - the name of the field
        image: Image | None = None,
        timeout_s: float = 30.0,
    ) -> Flow[SearchResult]:
        """The best passages, best first. `filter` speaks of the documents' metadata. `DeadlineExceeded`.

        In a collection with an image model also pictures: those that show what the query says, or look like the
        `image` (bytes, a file, or a URL that the server may fetch), with which the query may be empty.
        """
        body = {"query": query or None, "collection": collection, "limit": limit, "mode": mode, "filter": filter}
        body |= {} if image is None else {"image": _image(image)}
        call = Call(
            method="POST",
            path="/v1/search",
            json={**body, "timeout_s": timeout_s},
            timeout_s=timeout_s + self.options.timeout_s,
        )
        return request(self.options, call, SearchResult)

    @verb
    def ask(
        self,
        question: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        limit: int = 8,
        filter: JSON = None,  # noqa: A002 - the name of the field
        image: Image | None = None,
        timeout_s: float = 120.0,
    ) -> Flow[Answer]:
        """The answer with its citations. Raises what the job failed with, `DeadlineExceeded` after the time.

        `image` is what the question is about: bytes, a file, or a URL that the server may fetch.
        """
        wait_s = min(timeout_s, LONGEST_WAIT_S)
        body = _body(question, collection, limit, filter, image, timeout_s) | {"wait_s": wait_s}
        call = Call(method="POST", path="/v1/questions", json=body, timeout_s=wait_s + self.options.timeout_s)
        reply = yield from request(self.options, call, QuestionReply)
        if reply.answer is not None:
            return reply.answer
        job = yield from wait_job(self.options, reply.job_id, timeout_s - wait_s)
        return _answer(job, timeout_s)

    @stream_verb
    def ask_stream(
        self,
        question: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        limit: int = 8,
        filter: JSON = None,  # noqa: A002 - the name of the field
        image: Image | None = None,
        timeout_s: float = 120.0,
    ) -> Stream[str | Answer]:
        """Pieces of the answer's text as they are written, then the whole `Answer`.

        Survives broken connections and workers that die: then only pieces that continue the text so far are told. (When
        a second try turns out other words, the `Answer` is what counts.)
        """
        body = _body(question, collection, limit, filter, image, timeout_s) | {"stream": True}
        call = Call(method="POST", path="/v1/questions", json=body)
        text = StreamedText()
        for _ in range(self.options.attempts):
            reader = EventReader(self.options, call)
            job = yield from _follow(self.options, reader, text)
            # a server that sees its only reader leave cancels the question: ask again
            if job.state is not JobState.CANCELLED or not reader.breaks:
                break
        yield Emit(_answer(job, timeout_s))


class StreamedText:
    """Text that is told piece by piece, by one attempt after the other."""

    def __init__(self) -> None:
        self._told = ""
        self._run = ""
        self._attempt: tuple[str, int] | None = None

    def add(self, attempt: tuple[str, int], piece: str) -> str:
        """What of a piece is new. A new attempt begins with the first word again."""
        if attempt != self._attempt:
            self._attempt, self._run = attempt, ""
        self._run += piece
        if len(self._run) <= len(self._told) or not self._run.startswith(self._told):
            return ""
        new = self._run[len(self._told) :]
        self._told = self._run
        return new


def _follow(
    options: ClientOptions, reader: EventReader, text: StreamedText
) -> Generator[Effect | Emit[str | Answer], Any, Job]:
    """Tells the text of one job, and returns the job as it ended."""
    while (event := (yield from reader.next())) is not None and event.type not in {"answer", "error"}:
        told = job_event(event)
        if told.type == "delta":
            if new := text.add((reader.job_id, told.attempt), str(told.data.get("text", ""))):
                yield Emit(new)
        elif is_end(told):
            break
    return (yield from get_job(options, reader.job_id))


def _body(
    question: str, collection: str, limit: int, filter_: JSON, image: Image | None, timeout_s: float
) -> dict[str, JSON]:
    body = {
        "question": question,
        "collection": collection,
        "limit": limit,
        "filter": filter_,
        "timeout_s": timeout_s,
    }
    return body if image is None else body | {"image": _image(image)}


def _image(image: Image) -> str:
    if isinstance(image, str):
        return image
    data = image.read_bytes() if isinstance(image, Path) else image
    return base64.b64encode(data).decode()


def _answer(job: Job, timeout_s: float) -> Answer:
    match job.state:
        case JobState.SUCCEEDED:
            try:
                return msgspec.convert(job.result, Answer)
            except msgspec.ValidationError as exc:
                raise ProviderError(
                    f"The answer is not what this client understands ({exc}).", code="bad_reply"
                ) from exc
        case JobState.FAILED:
            raise failure_error(job.error, "The question")
        case JobState.CANCELLED:
            raise PenstockError("The question was cancelled.", code="cancelled")
        case _:
            raise DeadlineExceeded(f"No answer within {timeout_s:g} s. The question is still {job.state} ({job.id}).")
