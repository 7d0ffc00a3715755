"""The index engine of docs/extending.md: as it stands there, by its entry point, under the contract's main promises."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import DataError, NotFound
from penstock.filters import parse_filter
from penstock.stores import IndexQuery, IndexRow, IndexStore, open_index

GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"
DIMENSIONS = 4


def row(number: int, text: str) -> IndexRow:
    vector = np.eye(DIMENSIONS, dtype=np.float32)[number % DIMENSIONS]
    return IndexRow(
        chunk_id=f"chk_{number}",
        document_id=f"doc_{number}",
        version_id=f"ver_{number}",
        text=text,
        vector=vector,
        metadata={"n": number, "name": f"name {number}"},
    )


@pytest.fixture
async def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IndexStore]:
    """Installs the guide's package, as far as an installed package is a module and its entry points."""
    blocks = GUIDE.read_text().split("```python\n# penstock_shelf.py\n")[1].split("```")
    (tmp_path / "penstock_shelf.py").write_text(blocks[0])
    about = tmp_path / "penstock_shelf-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: penstock-shelf\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[penstock.index_engines]\nshelf = penstock_shelf:ShelfIndex\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with open_index("shelf://anything") as index:
        yield index
    sys.modules.pop("penstock_shelf")


async def test_the_guides_engine_works(shelf: IndexStore) -> None:
    with pytest.raises(NotFound):
        await shelf.upsert("col", [row(1, "river")])
    await shelf.create("col", DIMENSIONS)
    with pytest.raises(DataError, match="4 dimensions, not 5"):
        await shelf.create("col", 5)
    await shelf.upsert("col", [row(0, "river"), row(1, "the gates of the river"), row(2, "valve"), row(2, "turbine")])
    query = IndexQuery(k=2, vector=row(2, "").vector, text="gate river")
    hits = {one.chunk_id: one for one in (await shelf.search("col", query)).candidates}
    assert hits["chk_2"].dense == pytest.approx(1)
    assert (hits["chk_1"].fulltext or 0) > (hits["chk_0"].fulltext or 0) > 0
    late = parse_filter({"name": {"gte": "name 1"}, "n": {"lt": 2}})
    assert [
        one.chunk_id for one in (await shelf.search("col", IndexQuery(k=9, text="river", filter=late))).candidates
    ] == ["chk_1"]
    await shelf.delete("col", version_ids=["ver_1"], where=parse_filter({"n": 0}))
    assert await shelf.count("col") == 1
