"""Other libraries ingest a folder: read, cut, embed, index. Runs in an environment of its own, one peer a process.

    python ingest_peer.py (langchain|llamaindex) MODEL FOLDER TOKENS

Prints one JSON object: seconds and processor seconds of the ingest, model loaded before.
"""

# mypy: disable-error-code="import-not-found"
# ruff: noqa: PLC0415 (each peer is imported where it is installed)

import json
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any


def langchain(model: str, folder: str, tokens: int) -> Callable[[], int]:
    from langchain_chroma import Chroma
    from langchain_community.document_loaders import DirectoryLoader, TextLoader
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    embeddings = HuggingFaceEmbeddings(model_name=model, encode_kwargs={"normalize_embeddings": True})
    embeddings.embed_query("warm up")
    client: Any = getattr(embeddings, "_client", None) or embeddings.client
    splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
        client.tokenizer, chunk_size=tokens, chunk_overlap=0
    )
    home = TemporaryDirectory()

    def run() -> int:
        documents = DirectoryLoader(folder, glob="*.txt", loader_cls=TextLoader).load()
        chunks = splitter.split_documents(documents)
        Chroma.from_documents(chunks, embeddings, persist_directory=home.name)
        return len(chunks)

    return run


def llamaindex(model: str, folder: str, tokens: int) -> Callable[[], int]:
    from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedding = HuggingFaceEmbedding(model_name=model, device="cpu")
    embedding.get_query_embedding("warm up")
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=tokens, chunk_overlap=0), embedding], disable_cache=True
    )

    def run() -> int:
        nodes = pipeline.run(documents=SimpleDirectoryReader(folder).load_data())
        VectorStoreIndex(nodes, embed_model=embedding)
        return len(nodes)

    return run


def main() -> None:
    peer, model, folder, tokens = sys.argv[1:]
    run = {"langchain": langchain, "llamaindex": llamaindex}[peer](model, folder, int(tokens))
    began, cpu_began = time.perf_counter(), time.process_time()
    chunks = run()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "chunks": chunks}))


if __name__ == "__main__":
    main()
