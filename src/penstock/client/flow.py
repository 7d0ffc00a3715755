"""The client without input and output: a verb is a generator that yields effects and is sent what came of them.

So every verb, its retries, polling and resuming are written once; `transport.py` carries the effects out, with one thin
driver for threads and one for asyncio.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from penstock.types import JSON

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Query: TypeAlias = Mapping[str, str | int | float | Sequence[str] | None]
"""What stands behind the `?`. Values that are None are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A file of a multipart body. A path is opened anew for each attempt."""

    name: str
    content: bytes | Path
    media_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `repeatable`: sending it twice does no harm. `also`: statuses from 400 up that are no error."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    json: JSON = None
    files: Sequence[FilePart] = ()
    form: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    also: Sequence[int] = ()
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Send:
    """Is answered with the whole `Reply`; an `httpx.HTTPError` is thrown in."""

    call: Call


@dataclass(frozen=True, slots=True)
class Open:
    """Like `Send`, but the body of a 200 stays open for `Read`. Closes what was open before."""

    call: Call


@dataclass(frozen=True, slots=True)
class Read:
    """Is answered with the next bytes of the open body, None at its end; an `httpx.HTTPError` is thrown in."""


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[T_co]):
    """An item for whoever iterates."""

    value: T_co


Effect: TypeAlias = Send | Open | Read | Pause
Flow: TypeAlias = Generator[Effect, Any, T]
"""What returns one T at its end."""
Stream: TypeAlias = Generator[Effect | Emit[T], Any, None]
"""What emits Ts on its way."""


class Steps(Generic[T]):
    """A flow as a driver sees it: the effect to carry out now (None at the end), then `feed` or `fail`."""

    def __init__(self, flow: Generator[Effect | Emit[Any], Any, T]) -> None:
        self._flow = flow
        self._result: T | None = None
        self.effect: Effect | Emit[Any] | None = None
        self.feed(None)

    def feed(self, reply: Reply | bytes | None) -> None:
        try:
            self.effect = self._flow.send(reply)
        except StopIteration as stop:
            self._end(stop)

    def fail(self, error: Exception) -> None:
        try:
            self.effect = self._flow.throw(error)
        except StopIteration as stop:
            self._end(stop)

    @property
    def result(self) -> T:
        return self._result  # type: ignore[return-value]  # set by the end of the flow, which may well return None

    def _end(self, stop: StopIteration) -> None:
        self.effect = None
        self._result = stop.value
