"""What the models room tells Prometheus."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from penstock.models.base import Lane

WAITS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ModelMetrics:
    """The meters of one registry. Tokens a second and padding waste are rates of the counters."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("model", "lane")
        self.batches = Counter("penstock_model_batches", "Batches that ran", labels, registry=registry)
        self.rows = Counter("penstock_model_rows", "Texts that ran", labels, registry=registry)
        self.tokens = Counter(
            "penstock_model_tokens", "Tokens that ran, padding not counted", labels, registry=registry
        )
        self.padding = Counter("penstock_model_padding_tokens", "Padding that ran", labels, registry=registry)
        self.fill = Histogram(
            "penstock_model_batch_fill_ratio",
            "Tokens of a batch over the tokens that a batch may have",
            labels,
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1),
            registry=registry,
        )
        self.wait = Histogram(
            "penstock_model_wait_seconds",
            "From a text's arrival to its run",
            labels,
            buckets=WAITS_S,
            registry=registry,
        )
        self.run = Histogram(
            "penstock_model_run_seconds", "How long a batch ran", labels, buckets=WAITS_S, registry=registry
        )
        self.queued = Gauge("penstock_model_queued_tokens", "Tokens that wait", labels, registry=registry)
        self.cancelled = Counter(
            "penstock_model_cancelled_calls", "Calls whose caller went away", labels, registry=registry
        )
        self.failures = Counter("penstock_model_failures", "Batches that failed", ("model",), registry=registry)
        self.out_of_memory = Counter(
            "penstock_model_out_of_memory",
            "Batches that did not fit the device's memory and ran again in smaller ones",
            ("model",),
            registry=registry,
        )
        self.spared = Counter(
            "penstock_model_spared_rows",
            "Texts that did not fit the device's memory even alone and ran on the processor",
            ("model",),
            registry=registry,
        )
        self.budget = Gauge(
            "penstock_model_budget_tokens", "Tokens that a batch may have now", ("model",), registry=registry
        )
        self.loads = Counter("penstock_model_loads", "Loads by outcome", ("model", "outcome"), registry=registry)
        self.memory = Gauge("penstock_model_memory_bytes", "Weights in memory", ("model",), registry=registry)
        remote = ("provider", "model")
        self.remote_calls = Counter(
            "penstock_remote_model_calls",
            "Calls to a provider of embeddings or rankings by outcome: ok, abandoned or an error code",
            (*remote, "outcome"),
            registry=registry,
        )
        self.remote_retries = Counter(
            "penstock_remote_model_retries", "Calls that repeat a failed one", remote, registry=registry
        )
        self.remote_seconds = Histogram(
            "penstock_remote_model_call_seconds", "From call to end", remote, buckets=WAITS_S, registry=registry
        )

    def ran_out(self, model: str, budget_tokens: int) -> None:
        """A batch did not fit; from here on batches have at most `budget_tokens`."""
        self.out_of_memory.labels(model).inc()
        self.budget.labels(model).set(budget_tokens)

    def ran(self, model: str, lane: Lane, took_s: float) -> None:
        """A batch was in the engine for so long."""
        self.run.labels(model, lane).observe(took_s)

    def counted(
        self, model: str, lane: Lane, *, waits_s: Sequence[float], tokens: int, padded: int, limit: int
    ) -> None:
        """A batch came back: what its texts waited, its tokens, and those with padding, of `limit` at most."""
        wait = self.wait.labels(model, lane)
        for wait_s in waits_s:
            wait.observe(wait_s)
        self.rows.labels(model, lane).inc(len(waits_s))
        self.batches.labels(model, lane).inc()
        self.tokens.labels(model, lane).inc(tokens)
        self.padding.labels(model, lane).inc(padded - tokens)
        self.fill.labels(model, lane).observe(tokens / limit)
        self.budget.labels(model).set(limit)
