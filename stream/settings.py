"""The effective settings: `eddyline.toml` < `EDDYLINE_*` environment < command-line flags.

The only reader of the environment. Each section is a model beside its owner; here they are composed,
and an unknown name is refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from index.config import IndexConfig
from model.config import RankConfig, SearchConfig, TrainConfig
from model.encoder import Precision
from model.fatigue import FatigueConfig
from model.feedback import FeedbackConfig
from stream.answers.emission import EmitConfig
from stream.errors import ConfigError
from stream.events import InputConfig
from stream.folders import cache_folder
from stream.kafka.clients import KafkaConfig
from stream.kafka.topics import TopicsConfig
from stream.lists.recommend import RecommendConfig
from stream.lists.variants import VariantConfig, over, shares
from stream.process.health import HealthConfig
from stream.state import StateConfig
from stream.trends import TrendsConfig

FILE = "eddyline.toml"
PREFIX = "EDDYLINE_"
NOT_SETTINGS = {"EDDYLINE_DATA", "EDDYLINE_CACHE", "EDDYLINE_SCREENSHOTS", "EDDYLINE_CHROMIUM", "EDDYLINE_CONFIG"}
"""Variables with our prefix that are read elsewhere: by tests, by the launcher, and for the file's own place."""


class EncoderConfig(BaseModel):
    """Which BERT encodes item texts."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, description="a folder or name of a BERT model; default: the wheel's MiniLM")
    precision: Precision = Field(
        default="fp32",
        description="bf16: faster where the processor computes in it, lists differ little; set it alike everywhere",
    )


class Settings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["all", "ingest", "recommend"] = Field(
        default="all",
        description="what a worker does; ingest keeps the state, recommend answers from what it hands over",
    )
    kafka: KafkaConfig = KafkaConfig()
    topics: TopicsConfig = TopicsConfig()
    input: InputConfig = InputConfig()
    state: StateConfig = StateConfig()
    trends: TrendsConfig = TrendsConfig()
    encoder: EncoderConfig = EncoderConfig()
    recommend: RecommendConfig = RecommendConfig()
    index: IndexConfig = IndexConfig()
    rank: RankConfig = RankConfig()
    experiment: str = Field(default="1", description="splits users among [variants]; another name splits them anew")
    variants: dict[str, VariantConfig] = {}
    emit: EmitConfig = EmitConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()
    health: HealthConfig = HealthConfig()
    cache: Path = Field(default_factory=cache_folder)

    @model_validator(mode="before")
    @classmethod
    def _over_rank(cls, values: Any) -> Any:
        """[variants.NAME.rank] is put over [rank], before either is read: whatever has its own setting keeps it."""
        if not isinstance(values, Mapping) or not isinstance(variants := values.get("variants"), Mapping):
            return values
        base = values.get("rank", {})
        base = base.model_dump(exclude_unset=True) if isinstance(base, BaseModel) else base
        merged = {
            name: {**variant, "rank": over(base, variant.get("rank") or {})}
            if isinstance(variant, Mapping) and isinstance(base, Mapping)
            else variant
            for name, variant in variants.items()
        }
        return {**values, "variants": merged}

    @field_validator("variants")
    @classmethod
    def _shared_out(cls, variants: dict[str, VariantConfig]) -> dict[str, VariantConfig]:
        shares(variants)
        return variants

    @property
    def shadowed(self) -> bool:
        """Whether lists are written to the shadow topic."""
        return self.recommend.shadow or any(variant.shadow for variant in self.variants.values())

    @property
    def heeding(self) -> list[FatigueConfig | FeedbackConfig]:
        """What follows from what came of lists, of each variant."""
        ranks = [self.rank, *(variant.rank for variant in self.variants.values())]
        return [how for rank in ranks for how in (rank.fatigue, rank.feedback)]

    @property
    def reacts(self) -> bool:
        """Whether a variant heeds what came of its lists."""
        return any(how.on for how in self.heeding)

    @property
    def group(self) -> str:
        """The consumer group of the state version: a new version reads its topics anew.

        Whoever keeps the state is in one group, alone or with lists; who only answers is in another.
        """
        return f"eddyline-{self.state.name}" + ("-recommend" if self.role == "recommend" else "")


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Compose settings from the file, the environment and flags (`{"kafka.bootstrap_servers": …}`, None = not given).

    Raises:
        ConfigError: a file that cannot be read, an unknown name, or a value of the wrong kind.
    """
    env = os.environ if environ is None else environ
    values = _file(Path(env.get("EDDYLINE_CONFIG", FILE)), required="EDDYLINE_CONFIG" in env)
    for name, value in env.items():
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            _put(values, name[len(PREFIX) :].lower().split("__"), value)
    for name, value in (flags or {}).items():
        if value is not None:
            _put(values, name.split("."), value)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _config_error(error) from error


def _file(path: Path, required: bool) -> dict[str, Any]:
    if not path.exists():
        if required:
            raise ConfigError(f"{path} does not exist", "correct EDDYLINE_CONFIG, or unset it")
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "correct the file; it is TOML") from error


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"setting {part!r} is a section, not a value", f"write it as [{part}] in {FILE}")
        values = inner
    values[path[-1]] = value


SECRETIVE = {*Settings.model_fields, "input.registry"}
"""Sections that are not shown whole where they are wrong: they have secrets."""


def _config_error(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _known(Settings, path[:-1])
        near = difflib.get_close_matches(path[-1], known, 1, 0.5)
        section = f" in [{'.'.join(path[:-1])}]" if path[:-1] else ""
        return ConfigError(
            f"unknown setting {name!r}",
            f"did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else f"known{section}: {', '.join(known)}",
        )
    if name in SECRETIVE and isinstance(first["input"], Mapping):
        return ConfigError(f"section [{name}]: {first['msg']}", f"correct [{name}]")
    if "password" in name:
        return ConfigError(f"setting {name!r}: {first['msg']}", "correct it")
    return ConfigError(f"setting {name!r}: {first['msg']}", f"it was {str(first['input'])[:80]!r}; correct it")


def _known(model: type[BaseModel], path: list[str]) -> list[str]:
    at: Any = model
    for part in path:
        at = get_args(at)[1] if get_origin(at) is dict else at.model_fields[part].annotation
        if get_origin(at) is not dict:
            at = next((kind for kind in (at, *get_args(at)) if _is_section(kind)), None)
        if at is None:
            return []
    return list(at.model_fields) if _is_section(at) else []


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
