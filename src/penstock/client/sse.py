"""Server-sent events: the parser, and a reader that comes back to where it was when the connection breaks."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus

import httpx

from penstock.client.flow import Call, Flow, Pause, Read
from penstock.client.options import ClientOptions
from penstock.client.requests import exchange, transport_error
from penstock.errors import ProviderError

MAX_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """`id` is None where the server gave none; such an event cannot be resumed from."""

    id: str | None
    type: str
    data: str


class EventParser:
    """Bytes in, events out, in the format of the WHATWG HTML standard (section 9.2); lines end in LF or CRLF."""

    def __init__(self) -> None:
        self._rest = b""
        self._id: str | None = None
        self._type = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Raises `ProviderError` for an event larger than 16 MiB."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ProviderError(f"The server sent an event larger than {MAX_EVENT_BYTES} bytes.", code="bad_reply")
        for line in lines:
            if event := self._line(line.removesuffix(b"\r").decode("utf-8", "replace")):
                yield event

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                self._id = value
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
        return None

    def _dispatch(self) -> ServerEvent | None:
        event = ServerEvent(id=self._id, type=self._type or "message", data="\n".join(self._data))
        found = bool(self._data)
        self._id, self._type, self._data = None, "", []
        return event if found else None


class EventReader:
    """Reads the events of `call` one by one. Who reads knows which is the last one, and asks for no more then.

    When the connection ends before, it goes on behind the last event (`Last-Event-ID`) in the log of the job that the
    reply's `Location` names, else in `call` itself, until `options.attempts` breaks in a row brought nothing new.
    """

    def __init__(self, options: ClientOptions, call: Call, *, after: int = 0) -> None:
        self.breaks = 0
        """How often the connection broke."""
        self.job_id = ""
        """The job that the reply's `Location` named."""
        self._options = options
        self._call = call
        self._last_id = str(after) if after else None
        self._parser = EventParser()
        self._events: deque[ServerEvent] = deque()
        self._is_open = False
        self._in_vain = 0

    def next(self) -> Flow[ServerEvent | None]:
        """The next event; None when the server says that there are no more. Raises `Unavailable`."""
        while not self._events:
            if not self._is_open and not (yield from self._open()):
                return None
            try:
                data: bytes | None = yield Read()
            except httpx.TransportError as exc:
                yield from self._broken(exc)
            else:
                if data is None:
                    yield from self._broken(httpx.ReadError("it ended too early"))
                else:
                    self._events.extend(self._parser.feed(data))
        event = self._events.popleft()
        self._last_id = event.id or self._last_id
        self._in_vain = 0
        return event

    def _open(self) -> Flow[bool]:
        resume = {"last-event-id": self._last_id} if self._last_id else {}
        headers = {**self._call.headers, **resume, "accept": "text/event-stream"}
        reply = yield from exchange(self._options, replace(self._call, headers=headers), stream=True)
        if job_id := reply.headers.get("location", "").rpartition("/")[2]:
            self.job_id = job_id
            self._call = Call(method="GET", path=f"/v1/jobs/{job_id}/events")
        self._parser = EventParser()
        self._is_open = reply.status == HTTPStatus.OK
        return self._is_open

    def _broken(self, exc: httpx.TransportError) -> Flow[None]:
        self._is_open = False
        self.breaks += 1
        self._in_vain += 1
        if self._in_vain >= self._options.attempts:
            raise transport_error(exc, self._options) from exc
        yield Pause(self._options.first_pause_s * self._in_vain)
