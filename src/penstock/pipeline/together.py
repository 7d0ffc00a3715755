"""Look-ups of many callers made one: what is asked for while one is in flight goes along with the next."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Ask(Generic[K, V]):
    """`turn` is what its caller waits for: an answer, or that nobody looks up at the moment."""

    keys: Collection[K]
    turn: asyncio.Future[None] | None = None
    found: Mapping[K, V] | None = None
    error: Exception | None = None
    over: bool = False

    @property
    def answered(self) -> bool:
        return self.found is not None or self.error is not None

    def wake(self) -> None:
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)


class Together(Generic[K, V]):
    """Work-conserving: a caller that is alone waits for nobody, and nothing older than its call answers it.

    One of the callers makes the look-up for all that wait; where it is cancelled meanwhile, another one takes over.
    """

    def __init__(self, look_up: Callable[[Collection[K]], Awaitable[Mapping[K, V]]], *, most: int) -> None:
        """`most` keys at once, though always all of one caller's."""
        self._look_up = look_up
        self._most = most
        self._waiting: dict[_Ask[K, V], None] = {}
        self._busy = False

    async def get(self, keys: Collection[K]) -> Mapping[K, V]:
        """What the look-up found, of these keys and maybe others. Raises what it raises."""
        ask = _Ask[K, V](keys)
        self._waiting[ask] = None
        try:
            while not ask.answered:
                if self._busy:
                    ask.turn = asyncio.get_running_loop().create_future()
                    await ask.turn
                else:
                    await self._lead()
        finally:
            ask.over = True
            self._waiting.pop(ask, None)
            if not self._busy and self._waiting:
                next(iter(self._waiting)).wake()
        if ask.error is not None:
            raise ask.error
        assert ask.found is not None
        return ask.found

    async def _lead(self) -> None:
        batch, keys = self._take()
        self._busy = True
        try:
            found = await self._look_up(keys)
            for ask in batch:
                ask.found = found
        except Exception as exc:
            for ask in batch:
                ask.error = exc
        finally:
            self._busy = False
            again = {ask: None for ask in batch if not (ask.answered or ask.over)}
            self._waiting = again | self._waiting
            for ask in batch:
                if ask.answered:
                    ask.wake()

    def _take(self) -> tuple[list[_Ask[K, V]], Collection[K]]:
        """The next callers and what they want, each key once."""
        keys: dict[K, None] = {}
        batch: list[_Ask[K, V]] = []
        for ask in self._waiting:
            fresh = [key for key in ask.keys if key not in keys]
            if batch and len(keys) + len(fresh) > self._most:
                break
            batch.append(ask)
            keys.update(dict.fromkeys(fresh))
        for ask in batch:
            del self._waiting[ask]
        return batch, list(keys)
