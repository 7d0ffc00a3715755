"""Log setup: one line an event on stderr, as text for people or as JSON for machines."""

import logging
import sys
from typing import Final

import msgspec

FORMAT: Final = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"
QUIET: Final = ("httpx", "httpcore", "openai", "uvicorn.access", "lance", "huggingface_hub")
"""Libraries that tell more than a server's owner wants to read; their warnings still come through."""


class JsonFormatter(logging.Formatter):
    """`{"at", "level", "process", "logger", "message", "error"?}`, one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": record.created,
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def set_up_logs(level: str, *, json_lines: bool) -> None:
    """Sends all logs of this process to stderr, replacing whatever was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else logging.Formatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
