"""The two clients: the same verbs on two transports."""

from penstock.client.batches import BatchVerbs
from penstock.client.documents import CollectionVerbs, DocumentVerbs
from penstock.client.jobs import JobVerbs, ServerVerbs
from penstock.client.options import ClientOptions
from penstock.client.questions import QuestionVerbs
from penstock.client.transport import AsyncTransport, SyncTransport


class Client(CollectionVerbs, DocumentVerbs, BatchVerbs, QuestionVerbs, JobVerbs, ServerVerbs, SyncTransport):
    """The blocking client. One object may be shared by threads; close it, or use it as a context manager."""

    def __init__(self, url: str = "", api_key: str | None = None, *, options: ClientOptions | None = None) -> None:
        super().__init__(options or ClientOptions(url=url, api_key=api_key))


class AsyncClient(CollectionVerbs, DocumentVerbs, BatchVerbs, QuestionVerbs, JobVerbs, ServerVerbs, AsyncTransport):
    """The client for asyncio. Close it, or use it as an async context manager."""

    def __init__(self, url: str = "", api_key: str | None = None, *, options: ClientOptions | None = None) -> None:
        super().__init__(options or ClientOptions(url=url, api_key=api_key))
