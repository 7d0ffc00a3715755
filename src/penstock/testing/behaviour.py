"""How the fake provider answers: its pace, its length, and what goes wrong."""

import random
from collections import deque
from enum import StrEnum

import msgspec

from penstock.errors import InvalidInput
from penstock.types import JSON


class Fault(StrEnum):
    """What goes wrong with a reply. Those from `drip` on strike after `fault_after` tokens of a stream."""

    NONE = "none"
    STATUS = "status"  # an HTTP error, `status` of it, with `Retry-After` where `retry_after_s` is set
    RESET = "reset"  # the connection is reset before any header
    HANG = "hang"  # accepted, then nothing, not even headers
    ERROR_200 = "error_200"  # 200 with {"error": …}
    HTML = "html"  # 200 with a page of some proxy
    EMPTY_CHOICES = "empty_choices"  # a well-formed reply without any choice
    EMPTY_TEXT = "empty_text"  # a complete reply that says nothing

    DRIP = "drip"  # a comment byte every `drip_s`, and never a token again
    STALL = "stall"  # nothing more, the connection stays open
    RESET_MID = "reset_mid"  # the connection is reset
    CUT = "cut"  # the connection closes inside the body
    TRUNCATED = "truncated"  # the body ends cleanly, without finish_reason and [DONE]
    NO_DONE = "no_done"  # finish_reason comes, [DONE] does not: some providers end like this
    BROKEN_JSON = "broken_json"
    BAD_UTF8 = "bad_utf8"  # half a character, then the next line
    SPLIT_UTF8 = "split_utf8"  # harmless: every byte of a character in a packet of its own
    HUGE_LINE = "huge_line"  # one line of `huge_bytes`
    ERROR_EVENT = "error_event"  # data: {"error": …} in the middle of the stream
    FINISH_LENGTH = "finish_length"
    FINISH_FILTER = "finish_filter"

    WRONG_COUNT = "wrong_count"  # from here on: vectors and rerank scores
    WRONG_DIMENSION = "wrong_dimension"
    NAN = "nan"
    INFINITE = "infinite"
    REORDERED = "reordered"  # harmless where `index` is honoured
    WRONG_INDEX = "wrong_index"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reply's pace, length and fault. Times in seconds; `tokens` 0: as long as the text is.

    `fault_rate` is the share of requests that the fault strikes, drawn from `seed`. `max_concurrency` (0: none) is the
    number of requests in flight above which the server answers 429.
    """

    first_token_s: float = 0.0
    token_s: float = 0.0
    tokens: int = 0
    seed: int = 0
    fault: Fault = Fault.NONE
    fault_rate: float = 1.0
    fault_after: int = 3
    status: int = 429
    retry_after_s: float | None = None
    drip_s: float = 1.0
    huge_bytes: int = 50 * 1024 * 1024
    dimensions: int = 384
    max_concurrency: int = 0
    api_key: str = ""


class Script:
    """The behaviours to come: those queued, one a request, and then the standing one for ever."""

    def __init__(self, standing: Behaviour | None = None) -> None:
        self.standing = standing or Behaviour()
        self._queued: deque[Behaviour] = deque()
        self._random = random.Random(self.standing.seed)  # noqa: S311

    def stand(self, behaviour: Behaviour) -> None:
        self.standing = behaviour
        self._random = random.Random(behaviour.seed)  # noqa: S311
        self._queued.clear()

    def queue(self, *behaviours: Behaviour) -> None:
        self._queued.extend(behaviours)

    def next(self) -> Behaviour:
        behaviour = self._queued.popleft() if self._queued else self.standing
        struck = behaviour.fault_rate >= 1.0 or self._random.random() < behaviour.fault_rate
        return behaviour if struck else msgspec.structs.replace(behaviour, fault=Fault.NONE)


def merged(base: Behaviour, changes: JSON) -> Behaviour:
    """`base` with the named fields changed; `InvalidInput` for an unknown field or a wrong type."""
    try:
        return msgspec.convert({**msgspec.structs.asdict(base), **changes}, Behaviour)
    except (msgspec.ValidationError, TypeError) as exc:
        raise InvalidInput(f"Not a behaviour of the fake provider: {exc}") from exc
