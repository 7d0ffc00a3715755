"""What language models are told, and what is said without them. The templates are the files beside this one."""

import html
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Literal, TypeAlias

from penstock.types import Hit

Language: TypeAlias = Literal["en", "zh"]

NOT_FOUND: Mapping[Language, str] = {"en": "Not found in the documents.", "zh": "文档中没有找到相关内容。"}
"""The sentence that the templates ask for, word for word, when the passages do not hold the answer."""

IMAGE_NOT_READ: Mapping[Language, str] = {
    "en": "The image was not read: no model that takes pictures is configured. The answer comes from the text alone.",
    "zh": "图片没有被读取：没有配置能看图片的模型。回答只依据文字。",
}
"""Added to the answer to a question whose image nobody could look at."""

IMAGE_COMPARED: Mapping[Language, str] = {
    "en": "The image was compared with the pictures of the collection, but not read: no model that takes pictures is "
    "configured.",
    "zh": "图片已与文档集中的图片比较，但没有被读取：没有配置能看图片的模型。",
}
"""The same where the collection has an image model."""

PICTURES_FIT: Mapping[Language, tuple[str, str, str]] = {
    "en": ("These pictures of the documents fit the question best: ", "; ", "."),
    "zh": ("文档中与问题最相符的图片：", "；", "。"),
}
"""How an answer begins that is pictures alone, what stands between them, and how it ends."""

_LABELS: Mapping[Language, tuple[str, str]] = {"en": ("page {}", "Question: "), "zh": ("第{}页", "问题：")}
_TAG = re.compile(r"<(?=\s*/?\s*(?:passage|question))", re.IGNORECASE)
_HAN = re.compile(r"[\u3400-\u9fff]")
_KANA_OR_HANGUL = re.compile(r"[\u3041-\u30ff\uac00-\ud7af]")


def language_of(question: str) -> Language:
    """Chinese where there are Han characters (and no kana or hangul beside them), else English."""
    return "zh" if _HAN.search(question) and not _KANA_OR_HANGUL.search(question) else "en"


@lru_cache(maxsize=16)
def load_prompt(name: str, language: Language) -> str:
    """The text of `<name>.<language>.md`."""
    return files(__name__).joinpath(f"{name}.{language}.md").read_text(encoding="utf-8").strip()


def fit(hits: Sequence[Hit], budget_tokens: int) -> Sequence[Hit]:
    """As many of the first hits as have `budget_tokens` together, at least one."""
    total = 0
    for count, hit in enumerate(hits):
        total += hit.chunk.tokens
        if total > budget_tokens:
            return hits[: max(count, 1)]
    return hits


def question_prompt(
    question: str, hits: Sequence[Hit], language: Language, images: Mapping[str, int] | None = None
) -> str:
    """The passages, numbered from 1, and then the question. `images`: which passages (by chunk id) are shown too, and
    as the how manieth image.

    Nothing in a passage can end it or begin another one: the angle bracket of such a tag is replaced.
    """
    passages = "\n".join(
        _passage(number, hit, language, (images or {}).get(hit.chunk.id)) for number, hit in enumerate(hits, 1)
    )
    return f"<passages>\n{passages}\n</passages>\n\n{_LABELS[language][1]}{_TAG.sub('‹', question)}"


def describe_prompt(question: str, language: Language) -> str:
    """The question for whose sake an image is described."""
    return f"{_LABELS[language][1]}{_TAG.sub('‹', question)}"


def place(hit: Hit, language: Language) -> str:
    """`report.pdf · page 3 · Results`"""
    chunk = hit.chunk
    page = [_LABELS[language][0].format(chunk.page)] if chunk.page is not None else []
    return " · ".join([hit.document_name, *page, *chunk.headings])


def _passage(number: int, hit: Hit, language: Language, image: int | None) -> str:
    source = html.escape(" ".join(place(hit, language).split())[:300])
    shown = "" if image is None else f' image="{image}"'
    return f'<passage n="{number}" source="{source}"{shown}>\n{_TAG.sub("‹", hit.chunk.text)}\n</passage>'
