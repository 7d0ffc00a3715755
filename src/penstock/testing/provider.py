"""The fake provider: an OpenAI-compatible server whose pace and faults are at the tester's command."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.server import ServerState

from penstock.errors import InvalidInput
from penstock.testing.behaviour import Behaviour, Script, merged
from penstock.testing.connections import Connections, TrackedProtocol
from penstock.testing.delivery import Reply, Stats
from penstock.testing.vectors import embeddings, rerank
from penstock.types import JSON

BEHAVIOUR_HEADER = "x-fake-behaviour"
"""JSON of the fields of `Behaviour` that are different for this one request."""

_KEPT_REQUESTS = 100


class FakeProvider:
    """Async context manager around a listening server. `url` is the base URL that clients are given (ends in /v1).

    `script.queue(…)` gives the next requests a behaviour each, `script.stand(…)` all that come after them.
    `seen` holds the last bodies that came in, `stats` what became of them.
    """

    def __init__(self, standing: Behaviour | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.script = Script(standing)
        self.stats = Stats()
        self.seen: deque[JSON] = deque(maxlen=_KEPT_REQUESTS)
        self.connections = Connections()
        self._address = (host, port)
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        host, port = self._address
        return f"http://{host}:{port}/v1"

    async def __aenter__(self) -> Self:
        config = uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off")
        config.load()
        app_state = {"connections": self.connections}
        self._server = await asyncio.get_running_loop().create_server(
            lambda: TrackedProtocol(config, self._state, app_state), *self._address, backlog=4096
        )
        self._address = (self._address[0], self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server:
            self._server.close()
        self.connections.reset_all()
        await self.idle()

    async def idle(self) -> None:
        """Until no request is being answered any more."""
        while self._state.tasks:
            await asyncio.wait(self._state.tasks)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._replying(None), methods=["POST"]),
                Route("/v1/embeddings", self._replying(embeddings), methods=["POST"]),
                Route("/v1/rerank", self._replying(rerank), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/stats", self._get_stats),
                Route("/reset", self._reset, methods=["POST"]),
                Route("/control", self._control, methods=["POST"]),
            ]
        )

    def _replying(self, compute: Callable[[JSON, Behaviour], JSON] | None) -> Callable[[Request], Awaitable[Response]]:
        async def reply(request: Request) -> Response:
            try:
                body = json.loads(await request.body())
            except ClientDisconnect:
                self.stats.closed_by_client += 1
                return Response(status_code=499)
            except ValueError:
                return JSONResponse({"error": {"message": "The body is not JSON."}}, status_code=400)
            self._count(request, body)
            behaviour = self.script.next()
            if changes := request.headers.get(BEHAVIOUR_HEADER):
                behaviour = merged(behaviour, json.loads(changes))
            return Reply(
                body,
                behaviour=behaviour,
                connection=self.connections.of(tuple(request.scope["client"])),
                stats=self.stats,
                compute=compute,
                authorization=request.headers.get("authorization", ""),
            )

        return reply

    def _count(self, request: Request, body: JSON) -> None:
        path = request.url.path
        self.stats.requests += 1
        self.stats.paths[path] = self.stats.paths.get(path, 0) + 1
        self.seen.append(body)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "penstock"}]})

    async def _get_stats(self, _: Request) -> Response:
        now = {"connections": len(self.connections.open), "connections_accepted": self.connections.accepted}
        return JSONResponse({**msgspec.to_builtins(self.stats), **now})

    async def _reset(self, _: Request) -> Response:
        """Counters to zero; requests in flight keep counting as open."""
        self.stats.reset()
        self.seen.clear()
        return Response(status_code=204)

    async def _control(self, request: Request) -> Response:
        """`{"standing": {…}, "queue": [{…}, …]}`: fields of `Behaviour`, changed against the standing one."""
        body = await request.json()
        try:
            standing = merged(self.script.standing, body.get("standing", {}))
            queue = [merged(standing, changes) for changes in body.get("queue", [])]
        except InvalidInput as exc:
            return JSONResponse({"error": {"message": exc.message}}, status_code=400)
        self.script.stand(standing)
        self.script.queue(*queue)
        return JSONResponse(msgspec.to_builtins(standing))
