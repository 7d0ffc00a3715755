"""Texts of a batch one behind the other, without padding: only attention looks at which text a token belongs to.

Shapes: T tokens of N texts, the longest of L; A heads of D numbers each.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from penstock.models.base import TokenIds

Tensor: TypeAlias = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A batch on the device. `slots` (T,) is where a token lies in the padded layout (N · L); None: nothing is padded.

    `offsets` (N + 1,) is where each text begins and the last one ends. `types` (T,) is 0 for tokens of a pair's first
    text and 1 for those of its second; None: no pairs.
    """

    ids: Tensor
    positions: Tensor
    types: Tensor | None
    offsets: Tensor
    lengths: Tensor
    slots: Tensor | None
    texts: int
    longest: int

    def padded(self, x: Tensor) -> Tensor:
        """(T, …) to (N, L, …), zeros where there is no token."""
        if self.slots is not None:
            full = x.new_zeros((self.texts * self.longest, *x.shape[1:]))
            full[self.slots] = x
            x = full
        return x.reshape(self.texts, self.longest, *x.shape[1:])

    def unpadded(self, x: Tensor) -> Tensor:
        """(N, L, …) to (T, …)."""
        x = x.reshape(self.texts * self.longest, *x.shape[2:])
        return x if self.slots is None else x[self.slots]


def pack(torch: Any, ids: TokenIds, mask: TokenIds, device: str, types: TokenIds | None = None) -> Packed:
    """Leave the padding behind, and bring all that the network needs to the device in one transfer."""
    lengths = mask.sum(axis=1)
    real = mask.astype(bool)[:, : int(lengths.max())]
    texts, longest = real.shape
    positions = np.broadcast_to(np.arange(longest, dtype=np.int32), real.shape)[real]
    tokens = len(positions)
    kinds = positions[:0] if types is None else types[:, :longest][real]
    parts = (ids[:, :longest][real], positions, np.flatnonzero(real), kinds, np.cumsum([0, *lengths]), lengths)
    flat = torch.from_numpy(np.concatenate(parts).astype(np.int32))
    if device.startswith("cuda"):
        flat = flat.pin_memory()
    told = flat.to(device, non_blocking=True)
    sizes = (tokens, tokens, tokens, len(kinds), texts + 1, texts)
    ids_, positions_, slots, types_, offsets, lengths_ = told.split(sizes)
    return Packed(
        ids=ids_,
        positions=positions_,
        types=None if types is None else types_,
        offsets=offsets,
        lengths=lengths_,
        slots=None if tokens == texts * longest else slots.long(),
        texts=texts,
        longest=longest,
    )
