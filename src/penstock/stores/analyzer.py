"""Text to terms, before any engine: so that full-text search means the same in all of them."""

import re
import threading
import unicodedata
from functools import lru_cache
from itertools import pairwise

import Stemmer

MAX_TERM_CHARS = 64
MAX_QUERY_TERMS = 256
MAX_QUERY_CHARS = 10_000
STEM_CACHE = 50_000

# Scripts that are written without spaces: Han, kana, Hangul, Thai, Lao, Khmer, Myanmar.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUNS = re.compile(rf"([{_UNSPACED}]+)|([^\W_{_UNSPACED}]+)")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]")
_ACCENTS = re.compile("[\u0300-\u036f]")

# Words that say how something is asked, not what about. Without them BM25's best hit on SQuAD dev is right in 79.2 % of
# the questions instead of 77.5 %.
_STOP_WORDS = """
a an and are as at be been being by did do does for from had has have he her him his how i in into is it its me my no
not of on or our she than that the their them then there these they this those to us was we were what when where which
who whom whose why with you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


class _Stemmers(threading.local):
    """A stemmer a thread: one at work holds its word in itself."""

    def __init__(self) -> None:
        self._english = Stemmer.Stemmer("english", 0)  # the analyzer has a cache of its own

    def stem(self, word: str) -> str:
        return str(self._english.stemWord(word))


class Analyzer:
    """Splits text into terms. Holds the stems of the words seen lately; safe to share between threads.

    Latin and other spaced scripts: words, case and accents folded, English stop words dropped, English stems (of little
    harm to other languages: query and text are cut alike). Unspaced scripts: every character and every pair of
    neighbours, the usual choice where no dictionary is at hand.
    """

    def __init__(self) -> None:
        self._stem = lru_cache(maxsize=STEM_CACHE)(_Stemmers().stem)

    def terms(self, text: str) -> list[str]:
        """The terms in order, with repetitions. None has white space or more than `MAX_TERM_CHARS` characters."""
        found: list[str] = []
        for unspaced, word in _RUNS.findall(_fold(text)):
            if unspaced:
                found += _grams(unspaced)
            elif word not in STOP_WORDS:
                found.append(self._stem(word[:MAX_TERM_CHARS]))
        return found

    def index_terms(self, text: str) -> list[str]:
        """What is indexed and searched: `terms`, and after each stem the word as it stands (`=word`), so that exact
        forms count more. On SQuAD dev this lifts BM25's recall@10 from 95.4 % to 95.8 %, hit@1 by a point."""
        found: list[str] = []
        for unspaced, word in _RUNS.findall(_fold(text)):
            if unspaced:
                found += _grams(unspaced)
            elif word not in STOP_WORDS:
                found += (self._stem(word[:MAX_TERM_CHARS]), f"={word[:MAX_TERM_CHARS]}")
        return found

    def query_terms(self, text: str) -> list[str]:
        """The first `MAX_QUERY_TERMS` index terms of a question: a pasted page must not cost a scan of the index."""
        return self.index_terms(text[:MAX_QUERY_CHARS])[:MAX_QUERY_TERMS]


def is_unspaced(term: str) -> bool:
    """Whether a term is of a script without spaces: a character, or a pair that overlaps with its neighbours."""
    return _UNSPACED_RUN.match(term) is not None


def _grams(run: str) -> list[str]:
    return [*run, *map("".join, pairwise(run))]


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", _ACCENTS.sub("", decomposed)).casefold()
