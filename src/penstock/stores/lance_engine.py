"""LanceDB's package, imported in half of the time that it would take.

It brings a REST client, which we never use, of some hundred methods for each of which pydantic would make a validator.
"""

import pydantic

_validate_call = pydantic.validate_call
setattr(pydantic, "validate_call", lambda method: method)  # noqa: B010 (a type checker would object to the assignment)
try:
    import lancedb
    from lancedb.index import FTS, BTree, IvfFlat, LabelList
finally:
    setattr(pydantic, "validate_call", _validate_call)  # noqa: B010

__all__ = ["FTS", "BTree", "IvfFlat", "LabelList", "lancedb"]
