"""Text in pictures, by the program tesseract where that is installed (Debian: tesseract-ocr, tesseract-ocr-chi-sim).

Why not kreuzberg's own: on the Chinese page that was tried it got more characters wrong than the program did, and once,
with one of its settings, the process crashed. Runs in a parser process, under its limits of time and memory.
"""

import ctypes
import io
import os
import shutil
import signal
import subprocess
import time
from functools import lru_cache
from typing import Any

from PIL import Image

from penstock.pipeline.parsing.text import clean

PROGRAM = "tesseract"

_PAGE_SIDE = 400
_COARSE_PAGE_SIDE = 1200
"""A page (not a mere line of text) below this is enlarged: its letters have less than 15 pixels. Larger letters must
stay as they are: Chinese ones of 80 pixels are read worse than those of 40."""
_LONG_SIDE = 5000
_BLANK_CONTRAST = 24
_PR_SET_PDEATHSIG = 1
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None)


ORIENTATION = "osd"
"""The file by which tesseract finds which way is up; Debian's package brings it."""


def installed_languages() -> frozenset[str]:
    """The languages that tesseract knows here; none where it is not installed."""
    return _installed() - {ORIENTATION}


@lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    program = shutil.which(PROGRAM)
    if program is None:
        return frozenset()
    try:
        told = subprocess.run([program, "--list-langs"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(told.stdout.split("\n")[1:]) - {""}


class Recognizer:
    """Reads one document's pictures until its time is up. `known` languages: those wanted that are installed."""

    def __init__(self, languages: tuple[str, ...], time_s: float) -> None:
        self.known = tuple(language for language in languages if language in installed_languages())
        self._until = time.monotonic() + time_s

    @property
    def late(self) -> bool:
        """Whether it could read, but has no time left."""
        return bool(self.known) and time.monotonic() >= self._until

    @property
    def ready(self) -> bool:
        return bool(self.known) and not self.late

    def read(self, image: Image.Image) -> str | None:
        """The text, empty where there is none; None where it could not be looked for."""
        if not self.ready:
            return None
        data = io.BytesIO()
        _sized(image).save(data, "PNG", compress_level=1)
        layout = "1" if ORIENTATION in _installed() else "3"  # both find the columns; the first turns the page upright
        command = [PROGRAM, "stdin", "stdout", "-l", "+".join(self.known), "--psm", layout]
        environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
        try:
            told = subprocess.run(
                command,
                input=data.getvalue(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=max(1.0, self._until - time.monotonic()),
                preexec_fn=_die_with_parent,
                env=environment,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return clean(told.stdout.decode("utf-8", "replace")).strip()


def is_blank(image: Image.Image) -> bool:
    """Whether nothing stands on the page: hardly any contrast, seen small."""
    grey = image.convert("L")
    small = grey.resize((64, 64), Image.Resampling.BOX) if max(image.size) > 64 else grey
    levels = small.tobytes()
    return max(levels) - min(levels) < _BLANK_CONTRAST


def _sized(image: Image.Image) -> Image.Image:
    grey = image.convert("L")
    width, height = grey.size
    coarse = min(width, height) >= _PAGE_SIDE and max(width, height) < _COARSE_PAGE_SIDE
    factor = min(2.0 if coarse else 1.0, _LONG_SIDE / max(width, height))
    if factor == 1.0:
        return grey
    return grey.resize((max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.LANCZOS)


def _die_with_parent() -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
