"""Which parser reads which type, by name: kreuzberg, or an entry point of the group `penstock.parsers`."""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from penstock.errors import ConfigError, MissingDependency
from penstock.pipeline.parsing.base import Parser
from penstock.types import JSON

GROUP = "penstock.parsers"
BUILT_IN = "kreuzberg"

Maker: TypeAlias = Callable[[Mapping[str, JSON]], Parser]


def open_parser(name: str, options: Mapping[str, JSON]) -> Parser:
    """The parser of that name, made with its options. `ConfigError`, `MissingDependency`."""
    if name == BUILT_IN:
        from penstock.pipeline.parsing.extract import Extractor  # noqa: PLC0415 - imported where it is needed

        return Extractor()
    point = find_parser(name)
    try:
        maker: Maker = point.load()
    except ModuleNotFoundError as exc:
        raise MissingDependency(f'The parser {name} needs a package: pip install "{exc.name}"') from exc
    return maker(options)


def find_parser(name: str) -> EntryPoint:
    """`ConfigError` for a name that nobody has installed."""
    for point in entry_points(group=GROUP, name=name):
        return point
    known = ", ".join(sorted({BUILT_IN, *entry_points(group=GROUP).names}))
    raise ConfigError(
        f"There is no parser {name!r}; installed are {known}. Install its package, or correct parsing.use."
    )


def parser_version(name: str) -> str:
    """Name and version of the package that a parser comes from."""
    point = find_parser(name)
    return f"{name} {point.value} {point.dist.name} {point.dist.version}" if point.dist else f"{name} {point.value}"


class ParserCache:
    """The parsers of a process, each made when its first document comes."""

    def __init__(self) -> None:
        self._parsers: dict[str, Parser] = {}

    def get(self, name: str, options: Mapping[str, JSON]) -> Parser:
        if name not in self._parsers:
            self._parsers[name] = open_parser(name, options)
        return self._parsers[name]
