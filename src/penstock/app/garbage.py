"""Python's collector of reference cycles, told what need not be looked at."""

import gc

_YOUNG_OBJECTS = 10_000
"""So many new ones are looked at together: Python's 700 are few for a thousand requests in flight."""


def rest() -> None:
    """To be called before a process imports what it needs: that makes hundreds of thousands of objects and no garbage,
    but the collector looks through them several times over, for a sixth of the time that it takes. Until `settle`.
    """
    gc.disable()


def settle() -> None:
    """To be called once, when all is loaded that will stay: it is never looked at again.

    Else a collection walks through all of it, models and modules, in the middle of somebody's request: half a second
    was seen in a worker.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
    gc.enable()
