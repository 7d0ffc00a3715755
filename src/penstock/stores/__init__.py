"""The index: one contract, one file per engine. `open_index` picks the engine by the URL's scheme."""

from penstock.stores.base import Candidate, IndexQuery, IndexRow, IndexStore, LaneHits
from penstock.stores.options import StoresOptions
from penstock.stores.registry import open_index

__all__ = ["Candidate", "IndexQuery", "IndexRow", "IndexStore", "LaneHits", "StoresOptions", "open_index"]
