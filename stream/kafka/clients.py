"""The `[kafka]` settings, and every client that is opened from them.

Settings carry Kafka's own names, so that what works for another client works here. This module
opens producers, consumers and admin clients; it is not where topics are described
(`topics`) nor where Faust meets Kafka (`transport`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.helpers import create_ssl_context
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator, model_validator

from stream.errors import BrokerError, BrokerUnavailable, ConfigError

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest record that topics and clients of eddyline take: dead letters carry what others could not read."""


class KafkaConfig(BaseModel):
    """Connection settings under Kafka's own names; they apply to every client that is opened."""

    model_config = ConfigDict(extra="forbid")

    bootstrap_servers: str = "127.0.0.1:9092"
    client_id: str = "eddyline"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_plain_username: str | None = None
    sasl_plain_password: SecretStr | None = None
    request_timeout_ms: int = 40_000
    session_timeout_ms: int = 10_000
    heartbeat_interval_ms: int = 1_000
    rebalance_timeout_ms: int = 30_000
    max_poll_interval_ms: int = 300_000
    fetch_max_wait_ms: int = 500
    max_partition_fetch_bytes: int = 1024 * 1024
    metadata_max_age_ms: int = 60_000
    connections_max_idle_ms: int = 540_000
    group_instance_id: str | None = None
    compression_type: Literal["gzip", "snappy", "lz4", "zstd"] | None = None
    linger_ms: int = 0

    @field_validator("bootstrap_servers")
    @classmethod
    def _are_addresses(cls, servers: str) -> str:
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{server!r} is no address; write host:port, with commas between several")
        return servers

    @model_validator(mode="after")
    def _has_credentials(self) -> KafkaConfig:
        if self.security_protocol.startswith("SASL") and not (self.sasl_plain_username and self.sasl_plain_password):
            raise ValueError(f"{self.security_protocol} needs sasl_plain_username and sasl_plain_password")
        return self

    def common(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes."""
        out: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "request_timeout_ms": self.request_timeout_ms,
            "metadata_max_age_ms": self.metadata_max_age_ms,
            "connections_max_idle_ms": self.connections_max_idle_ms,
        }
        if self.security_protocol.endswith("SSL"):
            out["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            password = self.sasl_plain_password
            out |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_plain_username,
                "sasl_plain_password": password.get_secret_value() if password else None,
            }
        return out

    def consumer(self) -> dict[str, Any]:
        """Keyword arguments of a consumer: whole fetches, committed records only, no offsets of its own."""
        return self.common() | {
            "fetch_max_wait_ms": self.fetch_max_wait_ms,
            "max_partition_fetch_bytes": self.max_partition_fetch_bytes,
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
        }

    def member(self) -> dict[str, Any]:
        """Keyword arguments of a consumer that is a member of a group."""
        return self.consumer() | {
            "session_timeout_ms": self.session_timeout_ms,
            "heartbeat_interval_ms": self.heartbeat_interval_ms,
            "rebalance_timeout_ms": self.rebalance_timeout_ms,
            "max_poll_interval_ms": self.max_poll_interval_ms,
            "group_instance_id": self.group_instance_id,
        }

    def producer(self) -> dict[str, Any]:
        """Keyword arguments of a producer: idempotent, acknowledged by all replicas."""
        return self.common() | {
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": self.linger_ms,
            "compression_type": self.compression_type,
            "max_request_size": MAX_MESSAGE_BYTES,
            "max_batch_size": 512 * 1024,
        }

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = create_ssl_context(cafile=self.ssl_cafile, certfile=self.ssl_certfile, keyfile=self.ssl_keyfile)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                f"TLS cannot be set up from kafka.ssl_cafile, ssl_certfile and ssl_keyfile ({error})",
                "correct them: each is the path of a PEM file, and the key belongs to the certificate",
            ) from error
        context.check_hostname = self.ssl_check_hostname
        return context


def unavailable(config: KafkaConfig, error: BaseException) -> BrokerUnavailable:
    """The one error for a broker that does not answer, with its remedy."""
    return BrokerUnavailable(
        f"no Kafka broker answers at {config.bootstrap_servers} ({error})",
        "start one (`eddyline broker start` runs a local one), or set kafka.bootstrap_servers in eddyline.toml "
        "or EDDYLINE_KAFKA__BOOTSTRAP_SERVERS",
    )


def gave_up(doing: str, error: KafkaError) -> BrokerError:
    """The one error for what a running worker cannot go on from, where its own client names no more than a cause."""
    cause = f"{error!r}" if error.__cause__ is None else f"{error!r} from {error.__cause__!r}"
    return BrokerError(
        f"the broker went away or refused while {doing}: {cause}",
        "start the worker again when the broker is well: it goes on from what was committed, and nothing is lost; "
        "if it ends like this again, the broker's log says why",
    )


Client = TypeVar("Client", AIOKafkaAdminClient, AIOKafkaConsumer, AIOKafkaProducer)


@asynccontextmanager
async def _opened(client: Client, config: KafkaConfig) -> AsyncIterator[Client]:
    try:
        await client.start()
    except (KafkaConnectionError, OSError) as error:
        await stop(client)
        raise unavailable(config, error) from error
    except KafkaError:
        await stop(client)
        raise
    try:
        yield client
    finally:
        await stop(client)


async def stop(client: AIOKafkaAdminClient | AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop a client, and with the broker away too.

    aiokafka's consumer cancels the fetches under way, and where one waits to try again takes its cancellation for one
    of its own: its connections would stay open, and whoever stops it would be cancelled.
    """
    try:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
    except asyncio.CancelledError:
        if isinstance(client, AIOKafkaConsumer):
            await client._client.close()
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise


def admin(config: KafkaConfig) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    """An admin client, as an async context; raises `BrokerUnavailable` where nothing answers."""
    return _opened(AIOKafkaAdminClient(**config.common()), config)


def producer(config: KafkaConfig, **more: Any) -> AbstractAsyncContextManager[AIOKafkaProducer]:
    """A producer, as an async context; raises `BrokerUnavailable` where nothing answers."""
    return _opened(AIOKafkaProducer(**config.producer() | more), config)


def consumer(config: KafkaConfig, **more: Any) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """A consumer outside any group unless `more` names one, as an async context."""
    return _opened(AIOKafkaConsumer(**config.consumer() | more), config)


def header(headers: Any, name: str) -> bytes | None:
    """The first header called `name` of a record, or None."""
    return next((value for key, value in headers or () if key == name), None)
