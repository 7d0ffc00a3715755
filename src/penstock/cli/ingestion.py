"""Files through the API until all of them are searchable or have failed: what `penstock ingest` and its bench do."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.cli.files import batches
from penstock.client import AcceptedDocument, AsyncClient, NewFile, field_errors
from penstock.errors import InvalidInput, NotFound, PenstockError
from penstock.types import Document, DocumentStatus, Failure, JobState

UPLOADS_AT_ONCE = 3
FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 0.5
LOOK_SHARE = 0.1
"""Looking takes at most this share of the time, so that it does not slow down what it looks at."""
GET_ONE_BY_ONE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A file that did not become a searchable document, and why."""

    name: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far it is, in documents. `stages`: how many of them are in which stage now."""

    total: int
    uploaded: int = 0
    finished: int = 0
    failed: int = 0
    stages: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of all files. `chunks` and `seconds` are of this run; `unchanged` ones were searchable before."""

    done: int
    failed: int
    unchanged: int
    chunks: int
    seconds: float
    failures: Sequence[Unfit]
    documents: Sequence[Document]

    @property
    def documents_per_s(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0


class Ingestion:
    """One run. `show` is told of every step; `accepted` is what the server has promised to ingest so far,
    `unfit` what it will not."""

    def __init__(
        self,
        client: AsyncClient,
        collection: str,
        show: Callable[[State], None] = lambda _: None,
        *,
        longest_look_s: float = LONGEST_LOOK_S,
        uploads_at_once: int = UPLOADS_AT_ONCE,
    ) -> None:
        self.accepted: dict[str, AcceptedDocument] = {}
        self._client = client
        self._collection = collection
        self._show = show
        self._longest_look_s = longest_look_s
        self._uploads_at_once = uploads_at_once
        self._pending: set[str] = set()
        self.unfit: list[Unfit] = []
        self._state = State(total=0)
        self._uploading = 0

    async def upload(self, files: Sequence[NewFile]) -> None:
        """Uploads without waiting for what becomes of it. Raises what keeps it from going on at all."""
        self._state = State(total=len(files))
        todo = batches(files)
        self._uploading = self._uploads_at_once
        async with asyncio.TaskGroup() as group:
            for _ in range(self._uploads_at_once):
                group.create_task(self._upload_some(todo))

    async def run(self, files: Sequence[NewFile]) -> Report:
        """Uploads, and waits until every document is done or failed. Raises what keeps it from going on at all."""
        started = time.monotonic()
        self._uploading = self._uploads_at_once
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.upload(files))
                group.create_task(self._watch())
        except ExceptionGroup as exc:
            raise _first(exc) from exc
        return await self._report(time.monotonic() - started)

    async def _upload_some(self, todo: Iterator[Sequence[NewFile]]) -> None:
        for batch in todo:
            await self._upload_batch(batch)
        self._uploading -= 1

    async def _upload_batch(self, batch: Sequence[NewFile]) -> None:
        """A request is taken whole or not at all, so one that is refused goes again without its unfit files."""
        try:
            accepted = await self._client.upload(batch, collection=self._collection)
        except (InvalidInput, OSError) as exc:
            for smaller in self._sort_out(batch, exc):
                await self._upload_batch(smaller)
            return
        for one in accepted:
            self.accepted[one.document.id] = one
            if not one.document.status.final:
                self._pending.add(one.document.id)
        self._tell(uploaded=len(batch))

    def _sort_out(self, batch: Sequence[NewFile], exc: InvalidInput | OSError) -> Iterable[Sequence[NewFile]]:
        """What of a refused batch to try again, in which parts."""
        if len(batch) == 1:
            self._give_up(batch[0].name, exc)
            return []
        refused = {error.loc[1]: error for error in field_errors(exc)} if isinstance(exc, InvalidInput) else {}
        if not all(isinstance(index, int) and index < len(batch) for index in refused) or not refused:
            middle = len(batch) // 2
            return [batch[:middle], batch[middle:]]
        for index, error in refused.items():
            self._give_up(batch[int(index)].name, InvalidInput(error.detail, code=error.code))
        rest = [file for index, file in enumerate(batch) if index not in refused]
        return [rest] if rest else []

    def _give_up(self, name: str, exc: InvalidInput | OSError) -> None:
        if isinstance(exc, OSError):
            exc = InvalidInput(f"The file cannot be read: {exc.strerror}.", code="unreadable")
        self.unfit.append(Unfit(name=name, code=exc.code, message=exc.message))
        self._tell(uploaded=1)

    async def _watch(self) -> None:
        pause_s = FIRST_LOOK_S
        while self._uploading or self._pending:
            await asyncio.sleep(pause_s)
            started = time.monotonic()
            await self._look()
            pause_s = max(min(2 * pause_s, self._longest_look_s), (time.monotonic() - started) / LOOK_SHARE)

    async def _look(self) -> None:
        if not self._pending:
            return  # nothing is under way yet, or all of it was there before
        before = set(self._pending)
        listed = self._client.iter_documents(collection=self._collection, statuses=[DocumentStatus.PENDING])
        finished = before - {document.id async for document in listed}
        self._pending -= finished
        running = await self._client.list_jobs(states=[JobState.RUNNING], kinds=["ingest"], limit=1000)
        ours = {one.document.version_id for one in self.accepted.values()}
        stages = Counter(job.progress.stage for job in running.jobs if job.progress and job.subject in ours)
        failed = self._state.failed
        if finished:
            page = await self._client.list_documents(
                collection=self._collection, statuses=[DocumentStatus.FAILED, DocumentStatus.CANCELLED], limit=1000
            )
            failed = len({document.id for document in page.documents} & self.accepted.keys())
        self._tell(failed=failed, stages=stages)

    def _tell(self, *, uploaded: int = 0, failed: int | None = None, stages: Mapping[str, int] | None = None) -> None:
        state = self._state
        self._state = State(
            total=state.total,
            uploaded=state.uploaded + uploaded,
            finished=len(self.accepted) - len(self._pending) + len(self.unfit),
            failed=state.failed if failed is None else failed,
            stages=state.stages if stages is None else stages,
        )
        self._show(self._state)

    async def _report(self, seconds: float) -> Report:
        documents = await self._final_documents()
        failures = [*self.unfit]
        fresh: list[Document] = []
        for document_id, one in self.accepted.items():
            document = documents.get(document_id)
            if document is not None and document.status is DocumentStatus.DONE:
                if not one.document.status.final:
                    fresh.append(document)
            else:
                failures.append(_failure(one.document.name, document))
        return Report(
            done=len(fresh),
            failed=len(failures),
            unchanged=len(self.accepted) + len(self.unfit) - len(fresh) - len(failures),
            chunks=sum(document.chunks for document in fresh),
            seconds=seconds,
            failures=failures,
            documents=list(documents.values()),
        )

    async def _final_documents(self) -> dict[str, Document]:
        """The documents as they are now; those that somebody deleted meanwhile are missing.

        What was searchable before we came is as it was accepted: nobody need ask again.
        """
        found = {key: one.document for key, one in self.accepted.items() if one.document.status.final}
        waited_for = self.accepted.keys() - found.keys()
        if len(waited_for) > GET_ONE_BY_ONE:
            listed = self._client.iter_documents(collection=self._collection)
            return found | {document.id: document async for document in listed if document.id in waited_for}
        for document_id in waited_for:
            try:
                found[document_id] = await self._client.get_document(document_id)
            except NotFound:
                continue
        return found


def _failure(name: str, document: Document | None) -> Unfit:
    error = document.error if document else Failure(code="not_found", message="It was deleted meanwhile.")
    if error is None:
        return Unfit(name=name, code="cancelled", message="It was cancelled, or replaced by a newer version.")
    return Unfit(name=name, code=error.code, message=error.message)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group of groups. One of ours is preferred: it says what to do."""
    errors = list(_leaves(group))
    return next((error for error in errors if isinstance(error, PenstockError)), errors[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
