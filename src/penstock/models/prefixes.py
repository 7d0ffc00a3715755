"""What some models want before a query or a passage. Without it they lose several points of recall."""

import re
from dataclasses import dataclass

from penstock.models.base import Role

SENTENCE = "Represent this sentence for searching relevant passages: "
INSTRUCTION = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """Put before every text of that role."""

    query: str = ""
    passage: str = ""

    def of(self, role: Role) -> str:
        return self.query if role is Role.QUERY else self.passage


KNOWN = (
    (
        re.compile(r"(^|[-_/])e5-[\w.-]*instruct"),
        Prefixes(query=INSTRUCTION + " "),
    ),
    (re.compile(r"(^|[-_/])e5-"), Prefixes(query="query: ", passage="passage: ")),
    (re.compile(r"(^|[-_/])bge-m3"), Prefixes()),
    (re.compile(r"(^|[-_/])bge-[\w.-]*zh"), Prefixes(query="为这个句子生成表示以用于检索相关文章：")),
    (re.compile(r"(^|[-_/])bge-"), Prefixes(query=SENTENCE)),
    (re.compile(r"^qwen3-embedding"), Prefixes(query=INSTRUCTION)),
    (re.compile(r"^snowflake-arctic-embed-[\w-]*v2"), Prefixes(query="query: ")),
    (re.compile(r"^(snowflake-arctic-embed|mxbai-embed|uae-large)"), Prefixes(query=SENTENCE)),
    (re.compile(r"^nomic-embed-text"), Prefixes(query="search_query: ", passage="search_document: ")),
    (re.compile(r"^embeddinggemma"), Prefixes(query="task: search result | query: ", passage="title: none | text: ")),
)
"""By name, first match; as the models' cards ask for."""


def chosen_prefixes(found: Prefixes, *, query: str | None, passage: str | None) -> Prefixes:
    """What the settings say where they say something, else what was found."""
    return Prefixes(
        query=found.query if query is None else query, passage=found.passage if passage is None else passage
    )


def known_prefixes(name: str) -> Prefixes:
    """The prefixes of a model whose files do not tell them, by the last part of its name."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((prefixes for pattern, prefixes in KNOWN if pattern.search(last)), Prefixes())
