"""Which engine serves a URL, and what is said when none does."""

import sys

import pytest

from penstock.errors import ConfigError, MissingDependency
from penstock.stores import open_index
from penstock.stores.registry import ENGINES


@pytest.mark.parametrize("url", ["", "lancedb://", "nothing", "redis://user:secret@host", "qdrant+http://"])
def test_a_url_that_no_engine_understands(url: str) -> None:
    with pytest.raises(ConfigError, match=r"No index engine for the URL (?!.*secret)"):
        open_index(url)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("qdrant+http://host:6333", "qdrant_client", "qdrant"),
        ("milvus+lite:///file.db", "pymilvus", "milvus"),
        ("chroma+local:///folder", "chromadb", "chroma"),
        ("pgvector://me:secret@host/db", "asyncpg", "pgvector"),
    ],
)
def test_a_missing_package_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    target, _ = ENGINES[url.partition("://")[0]]
    monkeypatch.delitem(sys.modules, target.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf'pip install "penstock\[{extra}\]"') as caught:
        open_index(url)
    assert "secret" not in caught.value.message
