"""What jobs tell Prometheus: counted in the process where it happened."""

from prometheus_client import Counter, Gauge, Histogram

_WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

ENQUEUED = Counter("penstock_jobs_enqueued", "Jobs accepted by this process", ["kind", "priority"])
REFUSED = Counter("penstock_jobs_refused", "Jobs refused because the queue was full", ["priority"])
LEASED = Counter("penstock_jobs_leased", "Attempts started by this worker", ["kind", "priority"])
ENDED = Counter("penstock_jobs_ended", "Attempts ended by this worker, by how", ["kind", "priority", "outcome"])
LOST = Counter("penstock_jobs_leases_lost", "Leases that this worker lost while it ran the job", ["kind"])
RUNNING = Gauge("penstock_jobs_running", "Jobs in flight in this worker", ["priority"])
WAIT = Histogram("penstock_jobs_wait_seconds", "From ready to leased", ["kind", "priority"], buckets=_WAIT_BUCKETS)
RUN = Histogram("penstock_jobs_run_seconds", "One attempt's run time", ["kind", "priority"], buckets=_WAIT_BUCKETS)
