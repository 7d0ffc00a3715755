"""Bytes to characters: encodings of text files, and the one form that all text takes in Penstock."""

import codecs
import re
import unicodedata

_BOMS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH_RUNS = re.compile(rb"[\x80-\xff]+")
_ASCII_LETTERS = re.compile(rb"[A-Za-z]")
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028]")
_PARAGRAPH_ENDS = re.compile("\u2029")
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_SAMPLE_BYTES = 256 * 1024
_LANGUAGE_BYTES = 32 * 1024
_LATIN = ("cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "iso8859_9")
_ENCODINGS = (
    *("gb18030", "big5hkscs", "cp932", "euc_jis_2004", "cp949", "johab", "cp874", "tis_620", "cp1258", "mac_roman"),
    *("cp1251", "cp1253", "cp1255", "cp1256", "iso8859_5", "iso8859_7", "iso8859_8", "koi8_r", "koi8_u", "cp866"),
    *_LATIN,
)
"""What text files are written in; rarer ones would be guessed wrong more often than right."""
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]")
MAX_HEADING_CHARS = 200


def heading_text(text: str) -> str:
    """A heading as one line of bounded length: it is repeated with every passage below it."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_HEADING_CHARS else line[: MAX_HEADING_CHARS - 1] + "…"


def clean(text: str) -> str:
    """NFC, `\\n` line ends, and none of NUL, other control characters, byte order marks and lone surrogates."""
    if text.isascii() and text.isprintable():
        return text
    text = _PARAGRAPH_ENDS.sub("\n\n", _LINE_ENDS.sub("\n", text))
    return unicodedata.normalize("NFC", _UNWANTED.sub("", text))


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of a file: by its byte order mark, as UTF-8 if it is that, as declared, or by what its bytes look like.

    Never fails: a byte that fits nowhere becomes U+FFFD.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if _ISO_2022_JP.search(data, 0, _SAMPLE_BYTES):  # seven bits only, so it would pass for UTF-8
        return data.decode("iso2022_jp_2004", "replace")
    if b"\x00" not in data[:_SAMPLE_BYTES]:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return data.decode(_known(declared) or _guess(data[:_SAMPLE_BYTES]), "replace")


def _known(encoding: str | None) -> str | None:
    try:
        return codecs.lookup(encoding).name if encoding else None
    except LookupError:
        return None


def _guess(sample: bytes) -> str:
    """UTF-16 and UTF-32 by their zeros, damaged UTF-8 by its many good characters, else by how languages look."""
    if b"\x00" in sample:
        return _by_zeros(sample)
    damaged = sample.decode("utf-8", "replace").count("\ufffd")
    high_bytes = sum(map(len, _HIGH_RUNS.findall(sample)))
    if damaged * 10 < high_bytes:
        return "utf-8"
    return _by_language(sample)


def _by_language(sample: bytes) -> str:
    """By how often byte pairs stand beside each other in the languages of each encoding.

    The detector is loaded when it is first needed: its tables take some 30 MB, and most text is UTF-8.
    """
    import chardet  # noqa: PLC0415 - see above

    few = sample[:_LANGUAGE_BYTES]
    encodings = _LATIN if _is_mostly_ascii(few) else _ENCODINGS
    found = chardet.detect(few, include_encodings=encodings, prefer_superset=True, compat_names=False)
    return _known(found["encoding"]) or "cp1252"


def _is_mostly_ascii(sample: bytes) -> bool:
    """Single accents in Latin words: few of the letters are beyond ASCII, and hardly two of them side by side."""
    runs = _HIGH_RUNS.findall(sample)
    letters = sum(map(len, runs)) + len(_ASCII_LETTERS.findall(sample))
    single = sum(len(run) == 1 for run in runs)
    return sum(map(len, runs)) < 0.3 * letters and single >= 0.7 * len(runs)


def _by_zeros(sample: bytes) -> str:
    """Which bytes of each unit are zero tells the width and the order; Latin text is nearly all such zeros."""
    zeros = [sample[offset::4].count(0) * 4 / len(sample) for offset in range(4)]
    if zeros[1] > 0.5 and zeros[2] > 0.5:
        return "utf-32-le" if zeros[3] > zeros[0] else "utf-32-be"
    if zeros[1] + zeros[3] > zeros[0] + zeros[2] and zeros[1] > 0.2:
        return "utf-16-le"
    return "utf-16-be" if zeros[0] > 0.2 else "utf-8"
