"""Which language models answer, and how long they may take."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

PresetName: TypeAlias = Literal[
    "volcengine", "volcengine-vision", "gemini", "qwen", "qwen-vl", "openai", "ollama", "vllm"
]


@dataclass(frozen=True, slots=True)
class Preset:
    """Where a provider's OpenAI-compatible API is, and a model of it that does for answers from passages."""

    base_url: str
    model: str
    sees: bool
    max_concurrency: int = 1024


PRESETS: Mapping[PresetName, Preset] = {
    "volcengine": Preset("https://ark.cn-beijing.volces.com/api/v3", "doubao-seed-1-8-251228", sees=True),
    "volcengine-vision": Preset("https://ark.cn-beijing.volces.com/api/v3", "doubao-seed-1-6-vision-250815", sees=True),
    "gemini": Preset("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3.8-flash", sees=True),
    "qwen": Preset("https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen-plus", sees=False),
    "qwen-vl": Preset("https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen3-vl-plus", sees=True),
    "openai": Preset("https://api.openai.com/v1", "gpt-4.1-mini", sees=True),
    "ollama": Preset("http://127.0.0.1:11434/v1", "qwen3:4b", sees=False, max_concurrency=32),
    "vllm": Preset("http://127.0.0.1:8000/v1", "default", sees=False),
}


class EndpointOptions(BaseModel):
    """One model at one provider. A preset fills in what is not given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: PresetName | None = Field(None, description="a known provider: its base URL and a model of it")
    base_url: str = Field("", description="of an OpenAI-compatible API, usually ending in /v1")
    api_key: SecretStr = Field(SecretStr(""), description="sent as a bearer token; never logged")
    model: str = Field("", description="the model's name at the provider")
    sees: bool = Field(False, description="the model takes pictures in its messages")
    max_concurrency: int = Field(
        1024, ge=1, description="calls in flight at most (ollama: 32); from 128 on as far as the provider lets them in"
    )
    extra_body: Mapping[str, Any] = Field(
        default_factory=dict, description="further fields of the request; null takes one of ours away"
    )
    prompt_price: float = Field(0.0, ge=0, description="of a million prompt tokens, for the cost counter")
    completion_price: float = Field(0.0, ge=0, description="of a million completion tokens, for the cost counter")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("preset") not in PRESETS:
            return given
        preset = PRESETS[given["preset"]]
        base = asdict(preset)
        return base | {name: value for name, value in given.items() if value is not None and value != ""}

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        bare = key.get_secret_value().strip()
        if not (bare.isascii() and bare.isprintable()):
            raise ValueError("the key has characters that no key has")
        return SecretStr(bare)

    @model_validator(mode="after")
    def _check(self) -> "EndpointOptions":
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must begin with http:// or https://")
        if bool(self.base_url) != bool(self.model):
            raise ValueError("base_url and model belong together (a preset gives both)")
        return self


class GeneratorOptions(EndpointOptions):
    """The language model that writes answers; without `base_url` or `preset`, answers are quoted from the passages."""

    section: ClassVar[str] = "generator"
    """What the options are called in the settings."""

    fallbacks: tuple[EndpointOptions, ...] = Field((), description="asked in this order when the first cannot answer")
    connect_s: float = Field(5.0, gt=0, description="to reach the provider, TLS included")
    first_token_s: float = Field(60.0, gt=0, description="from the request to the first word")
    idle_s: float = Field(30.0, gt=0, description="between two pieces of the reply")
    total_s: float = Field(300.0, gt=0, description="for the whole reply, waiting, retries and fail-over included")
    max_tokens: int = Field(1024, ge=1, description="of a reply")
    temperature: float = Field(0.1, ge=0, le=2)
    max_retries: int = Field(2, ge=0, description="per endpoint, and only before the first word")
    backoff_s: float = Field(0.5, gt=0, description="the first retry waits up to this, later ones up to twice as long")
    max_retry_after_s: float = Field(20.0, ge=0, description="a provider that asks for more is passed over")
    max_line_bytes: int = Field(1024 * 1024, ge=1024, description="of one event of the stream")
    max_reply_bytes: int = Field(16 * 1024 * 1024, ge=1024, description="of the whole stream")
    breaker_failures: int = Field(5, ge=1, description="in a row, after which an endpoint is left alone for a while")
    breaker_cooldown_s: float = Field(10.0, gt=0, description="that while; doubles up to 60 s as failures go on")

    @property
    def configured(self) -> bool:
        return bool(self.base_url)

    @property
    def endpoints(self) -> tuple[EndpointOptions, ...]:
        """The first one and its fall-backs, in order."""
        return (self, *self.fallbacks)
