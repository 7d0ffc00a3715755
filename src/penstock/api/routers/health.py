"""The probes, open to everyone, and the metrics, which are not."""

from collections.abc import Awaitable, Callable

import anyio
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

import penstock
from penstock.api.answers import Health, Readiness
from penstock.api.auth import Reader
from penstock.api.json_io import reply
from penstock.api.routing import refusals
from penstock.api.state import ApiState, State
from penstock.errors import PenstockError, Unavailable

router = APIRouter(tags=["health"])

PROBE_TIMEOUT_S = 3.0


@router.get("/healthz", response_model=Health)
async def healthz() -> Response:
    """The process lives. Says nothing about what it stands on: a restart would not help that."""
    return reply({"status": "ok", "version": penstock.__version__})


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Something is missing; `checks` says what."}},
)
async def readyz(state: State) -> Response:
    """Ledger, jobs and blobs answer, and a worker has its models loaded."""
    services = state.services
    probes: dict[str, Callable[[], Awaitable[None]]] = {
        "ledger": services.ledger.ping,
        "jobs": services.jobs.ping,
        "blobs": services.blobs.ping,
        "workers": lambda: _some_worker_ready(state),
    }
    checks: dict[str, str] = {}

    async def check(name: str, probe: Callable[[], Awaitable[None]]) -> None:
        checks[name] = await _outcome(probe)

    async with anyio.create_task_group() as group:
        for name, probe in probes.items():
            group.start_soon(check, name, probe)
    ready = all(outcome == "ok" for outcome in checks.values())
    return reply({"ready": ready, "checks": {name: checks[name] for name in probes}}, 200 if ready else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses=refusals() | {200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}},
)
async def metrics(state: State, _: Reader) -> Response:
    """This process's requests, and the queues and workers as they are now."""
    jobs = state.services.jobs
    text = state.metrics.render(await jobs.stats(), await jobs.workers())
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _outcome(probe: Callable[[], Awaitable[None]]) -> str:
    try:
        with anyio.fail_after(PROBE_TIMEOUT_S):
            await probe()
    except TimeoutError:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    except PenstockError as exc:
        return exc.message
    return "ok"


async def _some_worker_ready(state: ApiState) -> None:
    workers = await state.services.jobs.workers()
    if not any(worker.ready for worker in workers):
        raise Unavailable("no worker has its models loaded" if workers else "no worker is running")
