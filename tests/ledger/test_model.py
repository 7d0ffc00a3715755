"""Random lives of documents, against a model that says in few words what the ledger must be."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import NotFound
from penstock.ids import chunk_id
from penstock.ledger import open_ledger
from penstock.ledger.base import NewVersion
from penstock.types import Chunk, CollectionOptions, Document, DocumentStatus, Failure

T = TypeVar("T")
PENDING, DONE, FAILED, CANCELLED = DocumentStatus


@dataclass(eq=False)
class Version:
    id: str
    document_id: str
    content: str
    status: DocumentStatus = PENDING
    chunks: tuple[str, ...] = ()
    indexed: bool = False
    """Whether the index may hold something of it: from the moment that somebody works on it until it is purged."""


@dataclass(eq=False)
class Doc:
    id: str
    versions: list[Version] = field(default_factory=list)
    shown: Version | None = None

    @property
    def newest(self) -> Version:
        return self.versions[-1]


class Lives(RuleBasedStateMachine):
    """`living` is what must be there, by name; `versions` are all that ever were."""

    @initialize()
    def start(self) -> None:
        self.last_seen: tuple[set[str], int] = (set(), 1)
        self.runner = asyncio.Runner()
        self.ledger = open_ledger("memory://")
        self.run(self.ledger.open())
        self.collection = self.run(self.ledger.create_collection("t", "c", CollectionOptions()))
        self.living: dict[str, Doc] = {}
        self.versions: list[Version] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.run(self.ledger.close())
            self.runner.close()

    def live(self, version: Version) -> bool:
        return any(doc.newest is version for doc in self.living.values())

    def doc_of(self, version: Version) -> Doc | None:
        return next((doc for doc in self.living.values() if doc.id == version.document_id), None)

    @rule(uploads=st.lists(st.tuples(st.sampled_from("ab文"), st.sampled_from("12")), max_size=3))
    def accept(self, uploads: list[tuple[str, str]]) -> None:
        new = [
            NewVersion(name=name, sha256=content * 64, size_bytes=1, media_type="text/plain", job_id="job")
            for name, content in uploads
        ]
        for (name, content), accepted in zip(uploads, self.run(self.ledger.accept("t", "c", new)), strict=True):
            self._accepted(name, content, accepted.document, created=accepted.created)

    def _accepted(self, name: str, content: str, document: Document, *, created: bool) -> None:
        doc = self.living.get(name)
        same = doc is not None and doc.newest.content == content and doc.newest.status in {PENDING, DONE}
        assert created is not same
        if doc is None:
            doc = self.living[name] = Doc(document.id)
        assert document.id == doc.id
        if not same:
            if doc.versions and doc.newest.status is PENDING:
                doc.newest.status = CANCELLED
            version = Version(document.version_id, doc.id, content, indexed=True)
            doc.versions.append(version)
            self.versions.append(version)
        assert document.version_id == doc.newest.id
        assert document.version == len(doc.versions)

    @precondition(lambda self: any(version.status is PENDING for version in self.versions))
    @rule(data=st.data(), n=st.integers(1, 3))
    def finish_pending(self, data: st.DataObject, n: int) -> None:
        self._finish(data.draw(st.sampled_from([v for v in self.versions if v.status is PENDING])), n)

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), n=st.integers(0, 3))
    def finish_any(self, data: st.DataObject, n: int) -> None:
        self._finish(data.draw(st.sampled_from(self.versions)), n)

    def _finish(self, version: Version, n: int) -> None:
        chunks = [
            Chunk(
                id=chunk_id(version.id, position),
                document_id=version.document_id,
                version_id=version.id,
                collection_id=self.collection.id,
                position=position,
                text="x",
                start=0,
                end=1,
                tokens=1,
            )
            for position in range(n)
        ]
        doc = self.doc_of(version)
        again = doc is not None and doc.shown is version
        expected = again or (self.live(version) and version.status is PENDING)
        assert self.run(self.ledger.finish_version(version.id, chunks, pages=1)) is expected
        version.indexed = True
        if expected and not again:
            assert doc is not None
            version.status, version.chunks, doc.shown = DONE, tuple(chunk.id for chunk in chunks), version

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        version = data.draw(st.sampled_from(self.versions))
        if fails:
            self.run(self.ledger.fail_version(version.id, Failure(code="x", message="x")))
        else:
            self.run(self.ledger.cancel_version(version.id))
        if version.status is PENDING:
            version.status = FAILED if fails else CANCELLED

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(self.versions))
        expected = self.live(version) and version.status is not DONE
        assert self.run(self.ledger.reopen_version(version.id, "job")) is expected
        if expected:
            version.status, version.indexed = PENDING, True

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.living)))
        doc = self.living.pop(name)
        self.run(self.ledger.delete_document("t", doc.id))
        for version in doc.versions:
            if version.status is PENDING:
                version.status = CANCELLED

    @precondition(lambda self: len(self.versions) > 8)
    @rule()
    def delete_collection(self) -> None:
        self.run(self.ledger.delete_collection("t", "c"))
        self.collection = self.run(self.ledger.create_collection("t", "c", CollectionOptions()))
        self.last_seen = (set(), self.collection.version)
        for doc in self.living.values():
            for version in doc.versions:
                if version.status is PENDING:
                    version.status = CANCELLED
        self.living = {}
        self.versions = []

    @rule()
    def purge(self) -> None:
        """All that may be in the index and is not wanted there is named, and nothing that is."""
        named = {one.version_id for one in self.run(self.ledger.garbage())}
        shown = {doc.shown for doc in self.living.values()}
        wanted = {version.id for version in self.versions if version in shown or version.status is PENDING}
        assert not named & wanted
        assert {version.id for version in self.versions if version.indexed} - wanted <= named
        self.run(self.ledger.forget(sorted(named)))
        for version in self.versions:
            version.indexed = version.indexed and version.id not in named
        assert not self.run(self.ledger.garbage())

    @invariant()
    def documents_are_as_they_should_be(self) -> None:
        if not hasattr(self, "living"):
            return
        page = self.run(self.ledger.list_documents("t", "c"))
        assert {d.name: (d.id, d.status, d.version_id) for d in page.documents} == {
            name: (doc.id, doc.newest.status, doc.newest.id) for name, doc in self.living.items()
        }
        pending = self.run(self.ledger.pending_versions())
        assert {work.version_id for work in pending} == {v.id for v in self.versions if v.status is PENDING}
        assert all(work.live for work in pending)
        for version in self.versions:
            try:
                work = self.run(self.ledger.get_version(version.id))
            except NotFound:
                assert not self.live(version)
            else:
                assert (work.status, work.live) == (version.status, self.live(version))

    @invariant()
    def only_what_is_shown_is_searchable(self) -> None:
        if not hasattr(self, "living"):
            return
        shown = [doc.shown for doc in self.living.values() if doc.shown]
        expected = sorted(chunk for version in shown for chunk in version.chunks)
        every = [chunk_id(version.id, position) for version in self.versions for position in range(3)]
        assert sorted(self.run(self.ledger.get_chunks(self.collection.id, every))) == expected
        scanned = self.run(self.ledger.scan_chunks(self.collection.id))
        assert [found.chunk.id for found in scanned] == expected
        collection = self.run(self.ledger.get_collection("t", "c"))
        assert (collection.documents, collection.chunks) == (len(shown), len(expected))
        before, version_before = self.last_seen
        self.last_seen = ({version.id for version in shown}, collection.version)
        assert (collection.version > version_before) is (self.last_seen[0] != before)
        blobs = {v.content * 64 for doc in self.living.values() for v in (doc.newest, doc.shown) if v}
        assert self.run(self.ledger.live_blobs(["1" * 64, "2" * 64])) == blobs


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes: add it when there is need
)
