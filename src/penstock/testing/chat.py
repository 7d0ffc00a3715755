"""Chat completions of the fake provider: streamed and whole, and every way in which they go wrong."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable

from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.connections import Connection
from penstock.testing.replies import compose, count_tokens
from penstock.types import JSON

_TICK_S = 0.01
"""Tokens that are due within one tick go out in one packet, so that a thousand streams cost little CPU."""

_FINISH = {Fault.FINISH_LENGTH: "length", Fault.FINISH_FILTER: "content_filter"}
_BAD_LINES = {
    Fault.BROKEN_JSON: b'data: {"choices": [{"delta": {"content": "bro\n\n',
    Fault.BAD_UTF8: b'data: {"choices": [{"index": 0, "delta": {"content": "\xe6\xb0"}}]}\n\n',
    Fault.ERROR_EVENT: b'data: {"error": {"message": "The engine ran out of memory.", "type": "server_error"}}\n\n',
}
_MID_STREAM = frozenset(
    {
        Fault.DRIP,
        Fault.STALL,
        Fault.RESET_MID,
        Fault.CUT,
        Fault.TRUNCATED,
        Fault.SPLIT_UTF8,
        Fault.HUGE_LINE,
        *_BAD_LINES,
    }
)
_ids = itertools.count(1)
_quoted = json.encoder.encode_basestring_ascii


class Hangup(Exception):
    """Stop here: the rest of the body is never sent. `how` says what becomes of the connection."""

    def __init__(self, how: Callable[[], None]) -> None:
        self.how = how


class Completion:
    """One reply to a chat request."""

    def __init__(self, request: JSON, behaviour: Behaviour, connection: Connection) -> None:
        self._request = request
        self._behaviour = behaviour
        self._connection = connection
        messages = request.get("messages") or []
        self._messages = messages
        self._tokens = compose(messages, tokens=behaviour.tokens, seed=behaviour.seed)
        if behaviour.fault is Fault.EMPTY_TEXT:
            self._tokens = []
        self._base = {"id": f"chatcmpl-fake-{next(_ids)}", "created": 0, "model": request.get("model", "fake")}

    async def whole(self) -> JSON | None:
        """The reply in one piece, after the time that streaming it would take; None when the client has gone."""
        pace = self._behaviour
        if not await self._connection.sleep(pace.first_token_s + pace.token_s * len(self._tokens)):
            return None
        message = {"role": "assistant", "content": "".join(self._tokens)}
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        choices = [] if pace.fault is Fault.EMPTY_CHOICES else [choice]
        return {**self._base, "object": "chat.completion", "choices": choices, "usage": self._usage}

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events in packets; ends early when the client has gone. `Hangup` where the fault says so."""
        if self._behaviour.fault is Fault.EMPTY_CHOICES:
            yield self._event({"choices": []}) + b"data: [DONE]\n\n"
            return
        yield self._delta({"role": "assistant", "content": ""})
        async for packet in self._paced_tokens():
            yield packet
        if self._connection.closed:
            return
        async for packet in self._strike():
            yield packet
        if self._behaviour.fault is Fault.TRUNCATED:
            return
        yield self._choice({}, self._finish_reason) + self._ending()

    async def _paced_tokens(self) -> AsyncIterator[bytes]:
        """The tokens by an absolute clock: one that wakes late sends all that are due, and does not fall behind."""
        loop = asyncio.get_running_loop()
        pace = self._behaviour
        head, _, tail = self._delta({"content": ""}).rpartition(b'""')
        tokens = [b"".join((head, _quoted(token).encode(), tail)) for token in self._spoken]
        start = loop.time() + pace.first_token_s
        sent = 0
        while sent < len(tokens):
            wait = start + pace.token_s * sent - loop.time()
            if wait > 0 and not await self._connection.sleep(max(wait, _TICK_S if sent else 0)):
                return
            late = loop.time() - start
            due = len(tokens) if pace.token_s == 0 else min(len(tokens), int(late / pace.token_s) + 1)
            yield b"".join(tokens[sent : max(due, sent + 1)])
            sent = max(due, sent + 1)

    @property
    def _spoken(self) -> list[str]:
        if self._behaviour.fault in _MID_STREAM:
            return self._tokens[: self._behaviour.fault_after]
        return self._tokens

    async def _strike(self) -> AsyncIterator[bytes]:
        """The fault of the middle of a stream. Most never come back from here."""
        match self._behaviour.fault:
            case Fault.DRIP:
                while await self._connection.sleep(self._behaviour.drip_s):
                    yield b":"
                raise Hangup(self._connection.close)
            case Fault.STALL:
                await self._connection.sleep(None)
                raise Hangup(self._connection.close)
            case Fault.RESET_MID:
                await self._connection.sleep(_TICK_S)
                raise Hangup(self._connection.reset)
            case Fault.CUT:
                raise Hangup(self._connection.close)
            case Fault.SPLIT_UTF8:
                event = self._event({"choices": [{"index": 0, "delta": {"content": " 水门。"}}]}, ascii_only=False)
                head, characters, tail = event.partition("水门。".encode())
                for packet in (head, *(bytes([byte]) for byte in characters), tail):
                    await self._connection.sleep(0.0005)
                    yield packet
            case Fault.HUGE_LINE:
                async for packet in self._huge_line():
                    yield packet
            case fault if fault in _BAD_LINES:
                yield _BAD_LINES[fault]
            case _:
                return

    async def _huge_line(self) -> AsyncIterator[bytes]:
        yield b'data: {"choices": [{"index": 0, "delta": {"content": "'
        block = b"x" * 65536
        for _ in range(self._behaviour.huge_bytes // len(block)):
            if self._connection.closed:
                raise Hangup(self._connection.close)
            yield block
        yield b'"}}]}\n\n'

    def _ending(self) -> bytes:
        if self._behaviour.fault is Fault.NO_DONE:
            return b""
        wanted = (self._request.get("stream_options") or {}).get("include_usage")
        usage = self._event({"choices": [], "usage": self._usage}) if wanted else b""
        return usage + b"data: [DONE]\n\n"

    @property
    def _finish_reason(self) -> str:
        return _FINISH.get(self._behaviour.fault, "stop")

    @property
    def _usage(self) -> JSON:
        asked, done = count_tokens(self._messages), len(self._tokens)
        return {"prompt_tokens": asked, "completion_tokens": done, "total_tokens": asked + done}

    def _delta(self, delta: JSON) -> bytes:
        return self._choice(delta, None)

    def _choice(self, delta: JSON, finish_reason: str | None) -> bytes:
        return self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    def _event(self, fields: JSON, *, ascii_only: bool = True) -> bytes:
        chunk = {**self._base, "object": "chat.completion.chunk", **fields}
        return b"data: " + json.dumps(chunk, ensure_ascii=ascii_only).encode() + b"\n\n"
