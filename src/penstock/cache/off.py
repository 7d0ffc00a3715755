"""No cache: for those who want none, and for measuring what one costs."""

from collections.abc import Mapping

from penstock.cache.base import Cache


class NoCache(Cache):
    """Holds nothing."""

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def _get_many(self, namespace: str, keys: list[str]) -> dict[str, bytes]:  # noqa: ARG002
        return {}

    async def _set_many(self, namespace: str, items: Mapping[str, bytes], ttl_s: float) -> None:
        pass
