"""How a reply reaches the client: whole, streamed, or broken in the way that its behaviour says."""

import json
from collections.abc import Callable, Mapping

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.chat import Completion, Hangup
from penstock.testing.connections import Connection
from penstock.types import JSON


class Stats(msgspec.Struct, kw_only=True):
    """Counters since the start or the last reset. `open` requests are being answered now."""

    requests: int = 0
    open: int = 0
    max_open: int = 0
    completed: int = 0
    refused: int = 0
    closed_by_client: int = 0
    broken: int = 0
    paths: dict[str, int] = msgspec.field(default_factory=dict)

    def reset(self) -> None:
        """All to zero, but for the requests that are open now."""
        fresh = Stats(open=self.open, max_open=self.open)
        for name in self.__struct_fields__:
            setattr(self, name, getattr(fresh, name))


class Reply(Response):
    """Answers one request on its connection, counts it, and knows when the client has gone."""

    def __init__(
        self,
        request: JSON,
        *,
        behaviour: Behaviour,
        connection: Connection,
        stats: Stats,
        compute: Callable[[JSON, Behaviour], JSON] | None = None,
        authorization: str = "",
    ) -> None:
        self._request = request
        self._behaviour = behaviour
        self._connection = connection
        self._stats = stats
        self._compute = compute
        self._authorization = authorization
        self.background = None

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        stats = self._stats
        stats.open += 1
        stats.max_open = max(stats.max_open, stats.open)
        try:
            await self._answer(send)
            if self._connection.closed:
                stats.closed_by_client += 1
            else:
                stats.completed += 1
        except Hangup as exc:
            if self._connection.closed:
                stats.closed_by_client += 1
                return
            stats.broken += 1
            exc.how()
            await self._connection.sleep(None)
        finally:
            stats.open -= 1

    async def _answer(self, send: Send) -> None:
        fault = self._behaviour.fault
        if refusal := self._refusal():
            self._stats.refused += 1
            await _send_json(send, *refusal)
        elif fault is Fault.RESET:
            raise Hangup(self._connection.reset)
        elif fault is Fault.HANG:
            await self._connection.sleep(None)
            raise Hangup(self._connection.close)
        elif fault is Fault.ERROR_200:
            await _send_json(send, 200, _error("The model is not loaded."), {})
        elif fault is Fault.HTML:
            await _send(send, 200, b"<html><body>Please log in to the network.</body></html>", "text/html")
        elif self._compute is None and self._request.get("stream"):
            await self._send_stream(send)
        else:
            await self._send_whole(send)

    def _refusal(self) -> tuple[int, JSON, Mapping[str, str]] | None:
        pace = self._behaviour
        if pace.api_key and self._authorization != f"Bearer {pace.api_key}":
            return 401, _error(f"Incorrect API key provided: {self._authorization}"), {}
        crowded = pace.max_concurrency and self._stats.open > pace.max_concurrency
        if not crowded and pace.fault is not Fault.STATUS:
            return None
        headers = {} if pace.retry_after_s is None else {"retry-after": f"{pace.retry_after_s:g}"}
        status = 429 if crowded else pace.status
        return status, _error(f"The fake provider says {status}."), headers

    async def _send_stream(self, send: Send) -> None:
        completion = Completion(self._request, self._behaviour, self._connection)
        await _start(send, 200, "text/event-stream")
        async for packet in completion.stream():
            await send({"type": "http.response.body", "body": packet, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _send_whole(self, send: Send) -> None:
        if self._compute is not None:
            body = self._compute(self._request, self._behaviour)
            here = await self._connection.sleep(self._behaviour.first_token_s)
        else:
            body = await Completion(self._request, self._behaviour, self._connection).whole()
            here = body is not None
        if here:
            await self._send_spoilt(send, json.dumps(body).encode())

    async def _send_spoilt(self, send: Send, body: bytes) -> None:
        """The whole body, or the half of it that comes before the fault."""
        half = body[: len(body) // 2]
        match self._behaviour.fault:
            case Fault.BROKEN_JSON:
                await _send(send, 200, half, "application/json")
            case Fault.HUGE_LINE:
                await _send(send, 200, b'"' + b"x" * self._behaviour.huge_bytes + b'"', "application/json")
            case Fault.DRIP | Fault.STALL | Fault.RESET_MID | Fault.CUT:
                await _start(send, 200, "application/json")
                await send({"type": "http.response.body", "body": half, "more_body": True})
                await self._stay_or_go(send)
            case _:
                await _send(send, 200, body, "application/json")

    async def _stay_or_go(self, send: Send) -> None:
        connection, fault = self._connection, self._behaviour.fault
        if fault is Fault.DRIP:
            while await connection.sleep(self._behaviour.drip_s):
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
        elif fault is Fault.STALL:
            await connection.sleep(None)
        else:
            await connection.sleep(0.01)
        raise Hangup(connection.reset if fault is Fault.RESET_MID else connection.close)


async def _start(send: Send, status: int, media_type: str, headers: Mapping[str, str] | None = None) -> None:
    pairs = {"content-type": media_type, **(headers or {})}.items()
    raw = [(name.encode(), value.encode()) for name, value in pairs]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send(
    send: Send, status: int, body: bytes, media_type: str, headers: Mapping[str, str] | None = None
) -> None:
    await _start(send, status, media_type, {"content-length": str(len(body)), **(headers or {})})
    await send({"type": "http.response.body", "body": body})


async def _send_json(send: Send, status: int, body: JSON, headers: Mapping[str, str]) -> None:
    await _send(send, status, json.dumps(body).encode(), "application/json", headers)


def _error(message: str) -> JSON:
    return {"error": {"message": message, "type": "fake_error", "code": None}}
