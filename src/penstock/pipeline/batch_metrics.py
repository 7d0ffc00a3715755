"""What batches count."""

from prometheus_client import Counter

ITEMS = Counter("penstock_batch_items", "Files of batches, by what became of them at the door", ["source", "outcome"])
ENDED = Counter("penstock_batches_gathered", "Batches that were gathered, or could not be", ["outcome"])
