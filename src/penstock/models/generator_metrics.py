"""What language models tell Prometheus. `provider` is the host, never a URL: that may hold secrets."""

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ("provider", "model")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)

CALLS = Counter(
    "penstock_generator_calls", "Calls to a provider by outcome: ok or an error code", (*_LABELS, "outcome")
)
RETRIES = Counter("penstock_generator_retries", "Calls that repeat a failed one", _LABELS)
TOKENS = Counter("penstock_generator_tokens", "Tokens that the provider counted", (*_LABELS, "kind"))
COST = Counter("penstock_generator_cost", "What the tokens cost, in the currency of the configured prices", _LABELS)
FIRST_TOKEN = Histogram("penstock_generator_first_token_seconds", "From call to first word", _LABELS, buckets=_SECONDS)
DURATION = Histogram("penstock_generator_call_seconds", "From call to end", _LABELS, buckets=_SECONDS)
IN_FLIGHT = Gauge("penstock_generator_in_flight", "Calls in flight", _LABELS)
LIMIT = Gauge("penstock_generator_limit", "Calls that may be in flight; falls under 429", _LABELS)
BREAKER = Gauge("penstock_generator_breaker_open", "1 while a failing provider is left alone", _LABELS)
