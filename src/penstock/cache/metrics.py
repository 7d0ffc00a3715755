"""What caches count."""

from prometheus_client import Counter

HITS = Counter("penstock_cache_hits", "Values found in the cache", ["namespace"])
MISSES = Counter("penstock_cache_misses", "Values looked for in vain", ["namespace"])
EVICTED = Counter("penstock_cache_evicted", "Values dropped to make room")
