"""What the routes share: made once an app, reached through `app.state`, open as long as the app is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import Depends
from starlette.requests import Request

from penstock.api.auth import Authenticator
from penstock.api.idempotency import Replies
from penstock.api.metrics import ApiMetrics
from penstock.api.promises import Promises
from penstock.api.ttl_cache import TtlCache
from penstock.api.watching import Watchers
from penstock.app import Services
from penstock.pipeline.intake import DEFAULT_COLLECTION

COLLECTION_CACHE_S = 2.0
SPOOL_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiState:
    services: Services
    authenticator: Authenticator
    metrics: ApiMetrics
    watchers: Watchers
    promises: Promises
    replies: Replies
    collections: TtlCache[tuple[str, str], None]
    """Collections that were there a moment ago: a question does not ask the ledger again."""
    spool_limiter: anyio.CapacityLimiter

    @property
    def spool_folder(self) -> Path | None:
        """Beside the stores, not in /tmp, which may be memory; None where there is no data folder."""
        folder = self.services.settings.data_dir
        return folder if folder.is_dir() else None

    async def require_collection(self, tenant: str, name: str) -> None:
        """`NotFound` for an unknown collection; the default one need not exist yet, it is then empty."""
        if name != DEFAULT_COLLECTION:
            await self.collections.get((tenant, name), lambda: self._look_up(tenant, name))

    async def _look_up(self, tenant: str, name: str) -> None:
        await self.services.ledger.get_collection(tenant, name)


def make_state(services: Services) -> ApiState:
    api = services.settings.api
    return ApiState(
        services=services,
        authenticator=Authenticator(services.ledger, api.host, api.cors_origins),
        metrics=ApiMetrics(),
        watchers=Watchers(),
        promises=Promises(),
        replies=Replies(services.ledger.replies),
        collections=TtlCache(ttl_s=COLLECTION_CACHE_S, max_entries=4096),
        spool_limiter=anyio.CapacityLimiter(SPOOL_THREADS),
    )


async def _state(request: Request) -> ApiState:
    state = request.app.state.penstock
    assert isinstance(state, ApiState)
    return state


State = Annotated[ApiState, Depends(_state)]
