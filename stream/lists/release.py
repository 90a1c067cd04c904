"""Announcing a model: what a release is, and the checks that a folder must pass before it is served.

A release is one small message in a compacted topic; workers follow it (`stream.lists.serving`) and load the
folder that it names. What is inside a model folder is known to `model.checkpoint` alone.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from stream.errors import ModelError
from stream.kafka.clients import KafkaConfig, producer
from stream.kafka.follow import newest_by_key
from stream.kafka.topics import topic_partitions

MANIFEST = "manifest.json"
NAME = "default"
"""The key under which the current release stands; beside it, others stand under aliases of their own, for variants."""


class Release(msgspec.Struct, frozen=True):
    """One announced model. `location`: a folder that every worker can read; `sha256`: of its manifest."""

    model: str
    version: int
    location: str
    sha256: str
    metrics: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What lists call it."""
        return f"{self.model}@{self.version}"


def manifest_sha256(folder: Path) -> str:
    """The checksum that names a model folder's content: that of its manifest, which has those of its files.

    Raises:
        ModelError: the folder has no manifest.
    """
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise _no_model(folder, str(error)) from error


def checked(release: Release) -> Path:
    """The release's folder, when it is what was announced.

    Raises:
        ModelError: it is not there, or has changed since.
    """
    folder = Path(release.location)
    if manifest_sha256(folder) != release.sha256:
        raise ModelError(
            f"{folder} is not what was announced as {release.model}@{release.version}",
            f"announce it again: eddyline release announce {folder}",
        )
    return folder


async def standing(kafka: KafkaConfig, topic: str) -> dict[str, Release]:
    """The releases that stand in the topic, by alias; what is no release is passed over, as by workers."""
    found: dict[str, Release] = {}
    for key, record in (await newest_by_key(kafka, topic)).items():
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            if record.value:
                found[key.decode()] = msgspec.json.decode(record.value, type=Release)
    return found


def kind(folder: Path) -> str:
    """What a model folder says that it is made of, in a word: the name that it is released by unless it is given one.

    Raises:
        ModelError: the folder has no manifest that says so.
    """
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["model"]).partition("@")[0]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_model(folder, repr(error)) from error


def _no_model(folder: Path, why: str) -> ModelError:
    return ModelError(f"{folder} is no model folder ({why})", "make one with `eddyline train`, or copy it again")


async def announce(
    kafka: KafkaConfig,
    topic: str,
    folder: Path,
    metrics: dict[str, Any],
    model: str | None = None,
    alias: str = NAME,
) -> Release:
    """Announce a model folder under an alias, by the name `model` or that of its `kind`, as a version above those that
    stand.
    """
    sha256, model = manifest_sha256(folder), model or kind(folder)
    before = await standing(kafka, topic)
    version = max((release.version for release in before.values()), default=0) + 1
    release = Release(model, version, str(folder.resolve()), sha256, metrics)
    async with producer(kafka) as client:
        await client.send_and_wait(topic, msgspec.json.encode(release), key=alias.encode())
    return release


async def withdraw(kafka: KafkaConfig, topic: str, alias: str = NAME) -> None:
    """Take a release back: workers return to the fallback, or to the current release where it stood under an alias."""
    await topic_partitions(kafka, [topic])
    async with producer(kafka) as client:
        await client.send_and_wait(topic, None, key=alias.encode())
