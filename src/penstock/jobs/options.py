"""What can be set about jobs: one model for the store, one for the worker loop."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from penstock.types import Priority

_MIB = 1024 * 1024


class Limit(BaseModel):
    """How much may be live (queued or running) at once; what comes on top is refused with `Overloaded`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: int = Field(ge=0)
    payload_bytes: int = Field(ge=0)


class JobsOptions(BaseModel):
    """The job store. Every process that opens the same store must use the same values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_s: float = Field(6.0, gt=0, description="the lease of a job whose worker is silent for so long is lost")
    max_payload_bytes: int = Field(_MIB, gt=0)
    max_result_bytes: int = Field(8 * _MIB, gt=0)
    max_events: int = Field(5_000, gt=1, description="of one job; the oldest are dropped")
    max_event_bytes: int = Field(64 * 1024, gt=0)
    events_ttl_s: float = Field(3600.0, ge=0, description="how long the log of a finished job is kept")
    backoff_base_s: float = Field(1.0, gt=0, description="at most so long is the pause after a first failure; doubles")
    backoff_cap_s: float = Field(60.0, gt=0)
    aged_after_s: float = Field(30.0, ge=0, description="a lower class that waited so long gets a share of the leases")
    aged_every: int = Field(8, gt=1, description="that share: one lease of so many")
    limits: Mapping[Priority, Limit] = Field(
        default_factory=lambda: {
            Priority.INTERACTIVE: Limit(jobs=20_000, payload_bytes=512 * _MIB),
            Priority.NORMAL: Limit(jobs=200_000, payload_bytes=1024 * _MIB),
            Priority.BULK: Limit(jobs=1_000_000, payload_bytes=2048 * _MIB),
        },
        description="of one class, all tenants together",
    )
    tenant_limits: Mapping[Priority, Limit] = Field(
        default_factory=lambda: {
            Priority.INTERACTIVE: Limit(jobs=10_000, payload_bytes=256 * _MIB),
            Priority.NORMAL: Limit(jobs=150_000, payload_bytes=768 * _MIB),
            Priority.BULK: Limit(jobs=750_000, payload_bytes=1536 * _MIB),
        },
        description="of one tenant in one class",
    )
    weights: Mapping[str, float] = Field(
        default_factory=dict, description="a tenant's share of the leases where several wait (default 1.0)"
    )


class WorkerOptions(BaseModel):
    """The loop of a worker process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(1024, gt=0, description="jobs in flight at once")
    background: int = Field(64, ge=0, description="of these at most so many of the classes normal and bulk")
    heartbeat_s: float = Field(2.0, gt=0, description="how often the leases are renewed; a third of the lease at most")
    grace_s: float = Field(20.0, ge=0, description="how long a stopping worker lets its jobs finish")
    flush_s: float = Field(0.02, ge=0, description="how long events are gathered before they are written")
    sweep_s: float = Field(1.0, gt=0, description="how often lost leases, deadlines and old records are looked for")
    stall_s: float = Field(60.0, gt=0, description="an event loop blocked for so long loses its leases")
    standby: bool = Field(
        True, description="`penstock serve` keeps a second process that has done its imports and takes over at once"
    )
    metrics_host: str = Field("127.0.0.1", description="where the worker's own `/metrics` listen")
    metrics_port: int = Field(0, ge=0, le=65535, description="of the worker's own `/metrics`; 0: none")
