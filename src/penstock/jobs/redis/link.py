"""The connections to Redis: one for scripts, that many callers share in pipelines, and one that listens.

A caller that is cancelled leaves its reply behind in the pipeline's own task, where it is dropped: no reply can ever
reach another caller, because nothing but that task reads the connection.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from penstock.errors import ConfigError, PenstockError, StorageFull, Unavailable
from penstock.jobs.redis.scripts import Script

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
_MAX_WAITING = 20_000
_MAX_PIPELINE = 128
_PAUSES_S = (0.1, 0.25, 0.5, 1.0, 2.0)


def explain(exc: Exception, where: str) -> PenstockError:
    """What an error of Redis or of its connection means. The URL's password is not in `where`."""
    text = str(exc)
    if isinstance(exc, (AuthenticationError, NoPermissionError)) or text.startswith(("NOAUTH", "WRONGPASS")):
        return ConfigError(f"Redis at {where} does not let us in: {text}")
    if isinstance(exc, OutOfMemoryError) or (isinstance(exc, ResponseError) and text.startswith("MISCONF")):
        return StorageFull(f"Redis at {where} takes no writes: {text}")
    return Unavailable(f"Redis at {where} cannot be used now: {text or type(exc).__name__}", code="redis_unavailable")


@dataclass(slots=True, eq=False)
class _Call:
    script: Script
    arguments: Sequence[bytes | str | int | float]
    future: "asyncio.Future[Any]"

    def answer(self, reply: Any, where: str) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if isinstance(reply, Exception):
            error = explain(reply, where)
            error.__cause__ = reply
            self.future.set_exception(error)
        else:
            self.future.set_result(reply)


class Link:
    """Runs scripts: whatever is asked while one pipeline is under way goes with the next."""

    def __init__(self, client: "Redis", prefix: str, where: str) -> None:
        self._client = client
        self._prefix = prefix
        self._where = where
        self._waiting: deque[_Call] = deque()
        self._asked = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="jobs-redis-link")

    async def call(self, script: Script, *arguments: bytes | str | int | float) -> Any:
        """The script's reply. Raises Unavailable when Redis is away or silent for `TIMEOUT_S`: it may have run."""
        if self._task.done():
            raise Unavailable("the job store is closed")
        if len(self._waiting) >= _MAX_WAITING:
            raise Unavailable(f"Redis at {self._where} does not answer as fast as it is asked to; try again")
        call = _Call(script, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._asked.set()
        return await call.future

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        for call in self._waiting:
            call.answer(ConnectionError("closed"), self._where)

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._waiting:
                calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_PIPELINE))]
                await self._send(calls)

    async def _send(self, calls: list[_Call]) -> None:
        calls = [call for call in calls if not call.future.done()]
        try:
            unknown = await self._pipeline(calls)
            if unknown:  # Redis was started anew or its scripts were flushed
                for script in {call.script.name: call.script for call in unknown}.values():
                    await self._client.script_load(script.text)
                for call in await self._pipeline(unknown):
                    call.answer(ResponseError(f"the script {call.script.name} is lost again"), self._where)
        except (RedisError, OSError) as exc:
            for call in calls:
                call.answer(exc, self._where)
        except asyncio.CancelledError:
            for call in calls:
                call.answer(ConnectionError("closed"), self._where)
            raise

    async def _pipeline(self, calls: list[_Call]) -> list[_Call]:
        """Send and answer; returns those whose script the server does not know (they have not run)."""
        unknown = []
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command("EVALSHA", call.script.sha, 1, self._prefix, *call.arguments)
            replies = await pipe.execute(raise_on_error=False)
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, NoScriptError):
                unknown.append(call)
            else:
                call.answer(reply, self._where)
        return unknown


class Listener:
    """Subscribes to channels when they are first wanted, and again whenever the connection was cut.

    `heard` gets each message; `joined` is called after each subscription: messages before it were missed.
    """

    def __init__(self, client: "Redis", heard: Callable[[bytes, bytes], None], joined: Callable[[], None]) -> None:
        self._client = client
        self._heard = heard
        self._joined = joined
        self._wanted: set[str] = set()
        self._any = asyncio.Event()
        self._pubsub: PubSub | None = None
        self._joining: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run(), name="jobs-redis-listener")

    def want(self, channel: str) -> None:
        if channel in self._wanted:
            return
        self._wanted.add(channel)
        self._any.set()
        if self._pubsub is not None:
            task = asyncio.create_task(self._subscribe(self._pubsub, channel))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    async def close(self) -> None:
        tasks = {self._task, *self._joining}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _run(self) -> None:
        await self._any.wait()
        failed = 0
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    joined = set[str]()
                    while missing := self._wanted - joined:
                        await pubsub.subscribe(*missing)
                        joined |= missing
                    self._pubsub = pubsub  # from here on `want` subscribes
                    failed = 0
                    await self._listen(pubsub)
            except (RedisError, OSError) as exc:
                logger.warning("the line to Redis was cut (%s); connecting again", exc)
                await asyncio.sleep(_PAUSES_S[min(failed, len(_PAUSES_S) - 1)])
                failed += 1
            finally:
                self._pubsub = None

    async def _listen(self, pubsub: "PubSub") -> None:
        while True:
            message = await pubsub.get_message(timeout=TIMEOUT_S)
            if message is None:
                await pubsub.ping()  # fails if the other end is gone without a word
            elif message["type"] == "message":
                self._heard(message["channel"], message["data"])
            elif message["type"] == "subscribe":
                self._joined()

    async def _subscribe(self, pubsub: "PubSub", channel: str) -> None:
        with suppress(RedisError, OSError):  # the listener finds out by itself and subscribes to all anew
            await pubsub.subscribe(channel)


def client(url: str) -> "Redis":
    """Without retries of its own: whether a script that was cut off has run is for the caller to think about."""
    return Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0), protocol=2
    )
