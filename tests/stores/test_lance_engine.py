"""The shortcut by which LanceDB is imported touches nobody else."""

import pydantic
import pytest

from penstock.stores.lance_engine import lancedb


def test_pydantic_validates_calls_as_before() -> None:
    @pydantic.validate_call
    def double(number: int) -> int:
        return 2 * number

    assert lancedb.__version__
    with pytest.raises(pydantic.ValidationError):
        double("no number")  # type: ignore[arg-type]
