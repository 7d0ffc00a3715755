"""The shapes of batches. An engine compiles kernels (milliseconds, a megabyte) for every new one, so they are few."""

from bisect import bisect_right

LENGTH_STEP = 16
"""Lengths are rounded up to this many tokens: 3 to 5 % padding on passages, and what a matrix kernel takes at once."""

QUESTION = 24
"""One length more, since most questions have 17 to 24 tokens: at 32 they cost a quarter more."""

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def padded_length(tokens: int, *, longest: int) -> int:
    """The length that a text of `tokens` tokens is padded to; a model reads at most `longest`."""
    rounded = QUESTION if LENGTH_STEP < tokens <= QUESTION else -(-tokens // LENGTH_STEP) * LENGTH_STEP
    return max(tokens, min(rounded, longest))


def whole_rows(rows: int) -> int:
    """The largest usual number of rows that `rows` (1 or more) fill."""
    return ROWS[bisect_right(ROWS, rows) - 1]
