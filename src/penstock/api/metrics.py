"""What `/metrics` tells: this process's requests as they happen, and the queues and workers as they are when asked."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.jobs.base import QueueStats
from penstock.types import WorkerInfo

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class ApiMetrics:
    """One registry an app, so that two apps in one process do not share their numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "penstock_http_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "penstock_http_request_seconds",
            "Time to the end of the answer",
            ["method", "route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge("penstock_http_requests_in_progress", "Requests open now", registry=self.registry)
        self.accepted = Counter("penstock_documents_accepted", "Documents accepted", registry=self.registry)
        self.abandoned = Counter(
            "penstock_jobs_abandoned", "Jobs cancelled because their client left", registry=self.registry
        )

    def render(self, queues: Sequence[QueueStats], workers: Sequence[WorkerInfo]) -> bytes:
        """The exposition text: this process and its rooms, its requests, then queues and workers."""
        now = CollectorRegistry()
        now.register(_Snapshot([*_queue_gauges(queues), _worker_gauge(workers)]))
        return b"".join(map(generate_latest, (REGISTRY, self.registry, now)))


class _Snapshot(Collector):
    """Metrics that were read a moment ago, in the shape that a registry takes."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _queue_gauges(queues: Sequence[QueueStats]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("penstock_queue_jobs", "Jobs by class and state", labels=["priority", "state"])
    oldest = GaugeMetricFamily(
        "penstock_queue_oldest_ready_seconds", "Age of the oldest ready job", labels=["priority"]
    )
    drain = GaugeMetricFamily("penstock_queue_drain_per_second", "Jobs finished a second", labels=["priority"])
    times = GaugeMetricFamily(
        "penstock_queue_seconds", "Percentiles of waiting and running", labels=["priority", "phase", "quantile"]
    )
    for queue in queues:
        for state in ("ready", "running", "delayed", "dead"):
            jobs.add_metric([queue.priority, state], getattr(queue, state))
        oldest.add_metric([queue.priority], queue.oldest_ready_age_s)
        drain.add_metric([queue.priority], queue.drain_per_s)
        for phase, percentiles in (("wait", queue.wait_s), ("run", queue.run_s)):
            for quantile, seconds in percentiles.items():
                times.add_metric([queue.priority, phase, quantile], seconds)
    yield from (jobs, oldest, drain, times)


def _worker_gauge(workers: Sequence[WorkerInfo]) -> Metric:
    gauge = GaugeMetricFamily("penstock_workers", "Workers seen lately", labels=["ready"])
    for ready in (True, False):
        gauge.add_metric([str(ready).lower()], sum(worker.ready is ready for worker in workers))
    return gauge
