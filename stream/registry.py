"""The schema registry that producers of Avro and Protobuf use: its settings, and what reads values by its schemas.

Schemas are fetched once an id, by Confluent's client; every registry that speaks its API will do (Confluent, Apicurio,
Karapace, Redpanda). A registry that does not answer is waited for, and no record is blamed for it: only an id that it
says it does not have makes a record unreadable. How values are read is `stream.formats`' affair.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from stream.errors import ConfigError, RegistryError
from stream.formats import FRAME, MAGIC, TYPES, Format, Reader, Schema, check_frame, reader

log = logging.getLogger(__name__)

ANSWERS_WITHIN_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
"""Between two tries to reach a registry that does not answer."""
REFUSED_KEPT = 1_000
"""Ids that are remembered as unknown: more are noise."""
_NOT_FOUND = 404


class RegistryConfig(BaseModel):
    """Where the schemas of topics are, if their format needs any."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(default=None, description="of the Confluent API; commas between several")
    username: str | None = None
    password: SecretStr | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    @model_validator(mode="after")
    def _well_formed(self) -> RegistryConfig:
        for url in (self.url or "").split(",") if self.url is not None else ():
            parts = urlsplit(url.strip())
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("url is none: write http://host:port or https://…, with commas between several")
            if parts.username or parts.password:
                raise ValueError("url has credentials in it, where they would be shown: set username and password")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        return self

    def properties(self) -> dict[str, Any]:
        """What Confluent's client is opened with. It tries once: waiting is ours."""
        auth = f"{self.username}:{self.password.get_secret_value()}" if self.password is not None else None
        said = {
            "url": self.url,
            "basic.auth.user.info": auth,
            "ssl.ca.location": self.ssl_cafile,
            "ssl.certificate.location": self.ssl_certfile,
            "ssl.key.location": self.ssl_keyfile,
            "timeout": ANSWERS_WITHIN_S,
            "max.retries": 0,
        }
        return {name: value for name, value in said.items() if value is not None}


class Schemas:
    """What reads the values of one format, by the schemas whose ids they begin with.

    Raises:
        ConfigError: what is needed is not installed, or the registry's certificates cannot be used.
    """

    def __init__(self, kind: Format, config: RegistryConfig) -> None:
        self._kind: Format = kind
        self._config = config
        self._readers: dict[bytes, Reader] = {}
        self._refused: set[bytes] = set()
        self._asking = asyncio.Lock()
        self.awaiting: str | None = None
        """Why values are not read just now."""
        _check(kind, config)

    def read(self, value: bytes) -> Any:
        """A value as plain objects.

        Raises:
            ValueError: it cannot be read, and why.
            RegistryError: it has a schema that is not `prepared`, and the registry does not answer.
        """
        found = self._readers.get(value[:FRAME])
        if found is None:
            check_frame(value)
            found = self._fetch(value[:FRAME])
        return found(value)

    async def prepared(self, values: Iterable[bytes | None]) -> None:
        """Wait until what reads these values is there, for as long as the registry does not answer. What it did not
        have is asked for again: it may have it by now.
        """
        if len(self._refused) > REFUSED_KEPT:
            for frame in self._refused:
                del self._readers[frame]
            self._refused.clear()
        frames = {value[:FRAME] for value in values if value and len(value) > FRAME}
        for frame in frames - (self._readers.keys() - self._refused):
            if frame[0] == MAGIC:
                async with self._asking:
                    if frame not in self._readers or frame in self._refused:
                        await self._fetched(frame)

    async def _fetched(self, frame: bytes) -> None:
        """Ask until there is an answer."""
        wait = FIRST_WAIT_S
        while True:
            try:
                await asyncio.to_thread(self._fetch, frame)
            except RegistryError as error:
                self.awaiting = error.message
                log.warning("%s; reading waits, and goes on when it answers", error.message)
            else:
                if self.awaiting is not None:
                    log.warning("the schema registry answers again")
                self.awaiting = None
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _fetch(self, frame: bytes) -> Reader:
        """What reads the values of a schema, or refuses them. Raises RegistryError where that is not known."""
        number = int.from_bytes(frame[1:], "big")
        try:
            found = reader(self._kind, _schema(self._kind, self._config, number))
        except (OSError, subprocess.SubprocessError) as error:
            raise RegistryError(
                f"schema {number} could not be compiled ({error})",
                "see that processes can be started, and files written",
            ) from error
        except ValueError as error:
            self._refused.add(frame)
            found = _refusing(f"schema {number}: {error}")
        else:
            self._refused.discard(frame)
        self._readers[frame] = found
        return found


def _refusing(why: str) -> Reader:
    def refuse(value: bytes) -> Any:
        raise ValueError(why)

    return refuse


def _check(kind: Format, config: RegistryConfig) -> None:
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        if kind == "avro":
            import fastavro  # noqa: F401
        else:
            import google.type.date_pb2  # noqa: F401
            import grpc_tools  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"format = {kind!r} is read by {error.name}, which is not installed", "pip install 'eddyline[registry]'"
        ) from error
    try:
        with SchemaRegistryClient(config.properties()):
            pass
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"a client of the schema registry cannot be made from [input.registry] ({error})",
            "correct ssl_cafile, ssl_certfile and ssl_keyfile: each is the path of a PEM file",
        ) from error


def _schema(kind: Format, config: RegistryConfig, number: int) -> Schema:
    """A registered schema, and those that it names.

    Raises:
        ValueError: the registry says that it has none, or has one of another format.
        RegistryError: it does not answer, or not as a registry does.
    """
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    serialized = "serialized" if kind == "protobuf" else None
    try:
        with SchemaRegistryClient(config.properties()) as client:
            found = client.get_schema(number, fmt=serialized)
            named = _named(client, found, serialized)
    except SchemaRegistryError as error:
        if error.http_status_code == _NOT_FOUND and (error.error_code or 0) // 100 == _NOT_FOUND:
            raise ValueError(f"the registry at {config.url} has no such schema") from error
        raise _unavailable(config, error) from error
    except Exception as error:  # of the HTTP client, which is not ours to name; or an answer that is not a registry's
        raise _unavailable(config, error) from error
    if found.schema_type != TYPES[kind]:
        raise ValueError(f"it is {found.schema_type}, and the topic's format is {kind!r}")
    return Schema(found.schema_str or "", list(named.items()))


def _named(client: Any, schema: Any, serialized: str | None) -> dict[str, str]:
    """The schemas that one names, by name; each after those that it names itself."""
    out: dict[str, str] = {}
    for reference in schema.references or ():
        found = client.get_version(reference.subject, reference.version, deleted=True, fmt=serialized).schema
        out |= _named(client, found, serialized)
        out[reference.name] = found.schema_str or ""
    return out


def _unavailable(config: RegistryConfig, error: Exception) -> RegistryError:
    return RegistryError(
        f"the schema registry at {config.url} does not answer as it should ({type(error).__name__}: {error})",
        "start it, or correct [input.registry]: url, username and password, ssl_cafile",
    )
