"""Every option of the server: the rooms' options composed, and where each value came from.

`penstock.toml` < environment `PENSTOCK_…` (`__` between levels) < flags. Unknown keys in the file are refused; unknown
`PENSTOCK_…` variables are named at start, since a typing error there would else go unnoticed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from penstock.cache.options import CacheOptions
from penstock.errors import ConfigError
from penstock.fetch.options import FetchOptions
from penstock.jobs.options import JobsOptions, WorkerOptions
from penstock.models.generator_options import GeneratorOptions
from penstock.models.options import ModelsOptions
from penstock.models.vision import VisionOptions
from penstock.pipeline.answer import AnswerOptions
from penstock.pipeline.archives.unpack import ArchiveOptions
from penstock.pipeline.parsing.options import ParsingOptions
from penstock.pipeline.pictures import ImageOptions
from penstock.stores.options import StoresOptions

PREFIX = "PENSTOCK_"
CONFIG_VARIABLE = "PENSTOCK_CONFIG"
FOREIGN_VARIABLES = frozenset({CONFIG_VARIABLE, "PENSTOCK_URL", "PENSTOCK_API_KEY", "PENSTOCK_TEST_DATA"})
"""Variables with our prefix that are not settings of the server: the config file's path, the client's, the tests'."""

MIB = 1024 * 1024


class ApiOptions(BaseModel):
    """The HTTP door."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Anything but a loopback address needs an API key to exist first (`penstock keys create`)."""
    port: int = Field(7733, ge=0, le=65535)
    max_upload_bytes: int = Field(100 * MIB, gt=0)
    """The largest single file."""
    max_request_bytes: int = Field(256 * MIB, gt=0)
    """The largest request body of all."""
    max_body_json_bytes: int = Field(16 * MIB, gt=0)
    max_question_chars: int = Field(8000, gt=0)
    max_wait_s: float = Field(60.0, gt=0)
    """The longest that a call may wait for its job."""
    allowed_folders: tuple[Path, ...] = ()
    """Folders of the server (with all below them) that a batch may name; none: no batch can."""
    rate_limit_per_minute: int = Field(0, ge=0)
    """Requests of one API key that an api process takes in a minute, a sixth of them at once; 0: no limit."""
    max_connections: int = Field(10_000, ge=1)
    """Open connections of an api process, event streams among them; whoever comes on top gets a 503 at once."""
    cors_origins: tuple[str, ...] = ()
    root_path: str = ""
    """The path under which a reverse proxy serves us."""


class LogOptions(BaseModel):
    """What is written to stderr."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: str = "INFO"
    json_lines: bool = False
    """One JSON object a line instead of text."""


class Settings(BaseSettings):
    """All options of one process, frozen. `load_settings` is the way to make one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    data_dir: Path = Path("penstock-data")
    """The folder that holds everything of a one-machine set-up."""
    ledger: SecretStr = SecretStr("")
    """URL of the ledger; empty: SQLite in the data folder."""
    jobs: SecretStr = SecretStr("")
    """URL of the job store; empty: SQLite in the data folder."""
    index: SecretStr = SecretStr("")
    """URL of the index; empty: LanceDB in the data folder."""
    index_engines: Mapping[str, SecretStr] = {}
    """URLs of other indexes by name, for collections that a reindex moves there (`penstock reindex --engine NAME`)."""
    blobs: SecretStr = SecretStr("")
    """URL of the blob store; empty: a folder in the data folder."""
    api: ApiOptions = ApiOptions()
    cache: CacheOptions = CacheOptions()
    queue: JobsOptions = JobsOptions()
    worker: WorkerOptions = WorkerOptions()
    models: ModelsOptions = ModelsOptions()
    stores: StoresOptions = StoresOptions()
    parsing: ParsingOptions = ParsingOptions()
    archives: ArchiveOptions = ArchiveOptions()
    generator: GeneratorOptions = GeneratorOptions()
    vision: VisionOptions = VisionOptions()
    images: ImageOptions = ImageOptions()
    fetch: FetchOptions = FetchOptions()
    answer: AnswerOptions = AnswerOptions()
    log: LogOptions = LogOptions()

    @property
    def sees(self) -> bool:
        """Whether a model that takes pictures is configured."""
        generator = self.generator
        return self.vision.configured or (generator.configured and any(one.sees for one in generator.endpoints))

    @property
    def ledger_url(self) -> str:
        return self.ledger.get_secret_value() or f"sqlite:///{self.data_dir.absolute() / 'ledger.sqlite3'}"

    @property
    def jobs_url(self) -> str:
        return self.jobs.get_secret_value() or f"sqlite:///{self.data_dir.absolute() / 'jobs.sqlite3'}"

    @property
    def index_url(self) -> str:
        return self.index.get_secret_value() or f"lancedb://{self.data_dir.absolute() / 'index'}"

    @property
    def blobs_url(self) -> str:
        return self.blobs.get_secret_value() or f"file://{self.data_dir.absolute() / 'blobs'}"

    @property
    def cache_url(self) -> str:
        return self.cache.url.get_secret_value() or f"sqlite:///{self.data_dir.absolute() / 'cache.sqlite3'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config_file())


def config_file() -> Path:
    """The settings file: what `PENSTOCK_CONFIG` names, else `penstock.toml` here (it need not exist)."""
    return Path(os.environ.get(CONFIG_VARIABLE, "penstock.toml"))


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this process; `flags` (nested like the model) win over everything.

    Raises `ConfigError` that names each wrong key, what is wrong with it, and where it came from.
    """
    if CONFIG_VARIABLE in os.environ and not config_file().is_file():
        raise ConfigError(f"{CONFIG_VARIABLE} names {config_file()}, which is not a file. Correct it or unset it.")
    try:
        return Settings(**(flags or {}))
    except ValidationError as exc:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False))
        raise ConfigError(f"The settings are wrong: {lines}. See `penstock config show --sources`.") from exc
    except (SettingsError, ValueError) as exc:
        raise ConfigError(f"The settings cannot be read ({config_file()} or the environment): {exc}") from exc


def settings_sources(flags: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Where each option that is not at its default came from: `{"api.port": "environment", …}`."""
    found = dict.fromkeys(_leaves(TomlConfigSettingsSource(Settings, toml_file=config_file())()), str(config_file()))
    found |= dict.fromkeys(_leaves(EnvSettingsSource(Settings)()), "environment")
    return found | dict.fromkeys(_leaves(flags or {}), "flag")


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The `PENSTOCK_…` variables that mean nothing: most likely typing errors."""
    return sorted(
        name
        for name in environ
        if name.startswith(PREFIX)
        and name not in FOREIGN_VARIABLES
        and not _is_option(Settings, name.removeprefix(PREFIX).lower().split("__"))
    )


def flat_settings(settings: Settings) -> dict[str, Any]:
    """Every option by its dotted name, secrets masked: what `penstock config show` prints."""
    return _leaves(settings.model_dump(mode="json"))


def _is_option(model: type[BaseModel], path: list[str]) -> bool:
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    if len(path) == 1:
        return True
    if get_origin(field.annotation) is Mapping:
        return True  # the names inside are the user's own; what stands under them is checked when it is read
    nested = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_model(kind)]
    return any(_is_option(kind, path[1:]) for kind in nested)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _leaves(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
