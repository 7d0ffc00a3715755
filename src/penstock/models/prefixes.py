"""What some models want before a query or a passage. Without it they lose several points of recall."""

import re
from dataclasses import dataclass

from penstock.models.base import Role


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
        Prefixes(query="Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "),
    ),
    (re.compile(r"(^|[-_/])e5-"), Prefixes(query="query: ", passage="passage: ")),
    (re.compile(r"(^|[-_/])bge-m3"), Prefixes()),
    (re.compile(r"(^|[-_/])bge-[\w.-]*zh"), Prefixes(query="为这个句子生成表示以用于检索相关文章：")),
    (re.compile(r"(^|[-_/])bge-"), Prefixes(query="Represent this sentence for searching relevant passages: ")),
)
"""By name, first match; as the models' cards ask for."""


def known_prefixes(name: str) -> Prefixes:
    """The prefixes of a model whose files do not tell them, by the last part of its name."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((prefixes for pattern, prefixes in KNOWN if pattern.search(last)), Prefixes())
