"""The Python client against a real server: what the README shows, and the verbs that no command uses."""

from pathlib import Path

import pytest

from penstock.client import AsyncClient, Client, NewFile, NewText, field_errors
from penstock.errors import Conflict, InvalidInput, NotFound
from penstock.types import Answer, CollectionOptions, DocumentStatus, JobState

TEXTS = [
    NewText(name="graz.txt", text="In Graz a street lamp is repaired within four days.", metadata={"city": "Graz"}),
    NewText(name="linz.txt", text="In Linz a street lamp is repaired within nine days.", metadata={"city": "Linz"}),
]


def test_texts_in_answers_out(server: str) -> None:
    with Client(server) as client:
        client.create_collection("sdk", CollectionOptions(chunk_tokens=64, chunk_overlap=8))
        accepted = client.add_texts(TEXTS, collection="sdk")
        assert [one.created for one in accepted] == [True, True]
        documents = [client.wait_document(one.document.id) for one in accepted]
        assert {document.status for document in documents} == {DocumentStatus.DONE}
        assert client.wait_job(accepted[0].job_id).state is JobState.SUCCEEDED
        again = client.add_texts(TEXTS, collection="sdk")
        assert [(one.created, one.document.id) for one in again] == [(False, document.id) for document in documents]
        found = client.search("repair of lamps", collection="sdk", filter={"city": "Linz"})
        assert [hit.document_name for hit in found.hits] == ["linz.txt"]
        answer = client.ask("Within how many days is a street lamp repaired in Graz?", collection="sdk")
        assert "four days" in answer.text
        [chunk] = client.iter_chunks(documents[0].id)
        assert chunk.text == TEXTS[0].text
        assert client.delete_document(documents[0].id).id == documents[0].id
        assert [document.name for document in client.iter_documents(collection="sdk")] == ["linz.txt"]
        assert client.delete_collection("sdk").name == "sdk"


async def test_the_same_on_asyncio(server: str, tmp_path: Path) -> None:
    path = tmp_path / "lamps.md"
    path.write_text("# Lamps\n\nA street lamp is repaired within six days.\n")
    async with AsyncClient(server) as client:
        await client.create_collection("sdk-async")
        [one] = await client.upload([NewFile(name="lamps.md", content=path)], collection="sdk-async")
        assert [event.data.get("state") async for event in client.job_events(one.job_id)][-1] == JobState.SUCCEEDED
        *pieces, answer = [
            piece async for piece in client.ask_stream("When is a lamp repaired?", collection="sdk-async")
        ]
        assert isinstance(answer, Answer)
        assert "".join(map(str, pieces)).strip() == answer.text.strip()
        assert "six days" in answer.text
        await client.delete_collection("sdk-async")


def test_refusals_are_typed(server: str) -> None:
    with Client(server) as client:
        with pytest.raises(NotFound):
            client.get_document("doc_nothing")
        with pytest.raises(NotFound):
            client.upload([NewFile(name="a.txt", content=b"a")], collection="nowhere")
        client.create_collection("sdk-twice")
        with pytest.raises(Conflict):
            client.create_collection("sdk-twice")
        with pytest.raises(InvalidInput) as caught:
            client.upload([NewFile(name="a.txt", content=b"a"), NewFile(name="empty.txt", content=b"")])
        assert [error.loc for error in field_errors(caught.value)] == [["body", 1, "empty.txt"]]
        client.delete_collection("sdk-twice")
