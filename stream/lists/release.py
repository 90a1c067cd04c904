"""Announcing a model: what a release is, which stand, which stood, and how one is announced, taken back or restored.

A release is one small message in a compacted topic; workers follow it (`stream.lists.serving`) and load the folder
that it names. Beside the key that workers follow, each version is kept under one of its own, so that it can be told
later what stood, and go back to it. Where folders are on this machine is known to `depot.py`, what is inside one to
`model.checkpoint` alone; whether a model is good enough is asked before (`stream.console.gating`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
RECORD = "version/"
"""What the keys of records begin with: of each version, whether it stands or not. No alias does."""
FORMAT = 1
"""Of these messages. A worker does not serve one of a later format: it would not know what it leaves out."""


class Release(msgspec.Struct, frozen=True):
    """One announced model.

    location: a folder that every worker can read, or a URL that each fetches it from; sha256: of its manifest; data:
    the hash of the events that it has learned from; announced: when, in ms; alias: under which; follows: the version
    that stood there before it, 0 = none.
    """

    model: str
    version: int
    location: str
    sha256: str
    metrics: dict[str, Any] = {}
    data: str = ""
    announced: int = 0
    alias: str = NAME
    follows: int = 0
    format: int = FORMAT

    @property
    def name(self) -> str:
        """What lists call it."""
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Releases:
    """standing: by alias; versions: all that ever stood, the newest first."""

    standing: dict[str, Release]
    versions: list[Release]

    def find(self, name: str) -> Release:
        """A version by its number or its name. Raises ModelError."""
        for one in self.versions:
            if name in (str(one.version), one.name):
                return one
        raise ModelError(f"no release {name!r}", "see which there are: eddyline release list")

    def before(self, alias: str) -> Release:
        """What stood under an alias before what stands there now. Raises ModelError."""
        now = self.standing.get(alias)
        if now is None:
            raise ModelError(
                f"nothing stands as {alias}, so nothing stood before it",
                "say which version is to stand: eddyline release rollback --to N",
            )
        for one in self.versions:
            if one.version == now.follows:
                return one
        raise ModelError(
            f"nothing stood as {alias} before {now.name}",
            "say which version is to stand: eddyline release rollback --to N; or go back to the fallback: "
            "eddyline release withdraw",
        )


def manifest_sha256(folder: Path) -> str:
    """The checksum that names a model folder's content: that of its manifest, which has those of its files.

    Raises:
        ModelError: the folder has no manifest.
    """
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise _no_model(folder, str(error)) from error


async def known(kafka: KafkaConfig, topic: str) -> Releases:
    """The releases in the topic; what is no release is passed over, as by workers."""
    standing: dict[str, Release] = {}
    versions: dict[int, Release] = {}
    for key, record in (await newest_by_key(kafka, topic)).items():
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            if not record.value:
                continue
            release, name = msgspec.json.decode(record.value, type=Release), key.decode()
            if name.startswith(RECORD):
                versions[release.version] = release
            else:
                standing[name] = release
    for alias, release in standing.items():  # announced before there were records
        versions.setdefault(release.version, msgspec.structs.replace(release, alias=alias))
    return Releases(standing, [versions[n] for n in sorted(versions, reverse=True)])


def kind(folder: Path) -> str:
    """What a model folder says that it is made of, in a word: the name that it is released by unless it is given one.

    Raises:
        ModelError: the folder has no manifest that says so.
    """
    try:
        return str(_manifest(folder)["model"]).partition("@")[0]
    except KeyError as error:
        raise _no_model(folder, repr(error)) from error


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise _no_model(folder, repr(error)) from error
    if not isinstance(found, dict):
        raise _no_model(folder, f"{MANIFEST} is no object")
    return found


def _no_model(folder: Path, why: str) -> ModelError:
    return ModelError(f"{folder} is no model folder ({why})", "make one with `eddyline train`, or copy it again")


async def announce(
    kafka: KafkaConfig,
    topic: str,
    folder: Path,
    metrics: dict[str, Any],
    model: str | None = None,
    alias: str = NAME,
    location: str | None = None,
    now: Callable[[], float] = time.time,
) -> Release:
    """Announce a model folder under an alias, by the name `model` or that of its `kind`, as a version above all there
    were. location: where workers find it, if that is not the folder itself; now: in seconds.

    Raises:
        ModelError: the folder has no manifest.
        TopicError: the topic is missing.
    """
    manifest, model = _manifest(folder), model or kind(folder)
    before = await known(kafka, topic)
    stood = before.standing.get(alias)
    release = Release(
        model,
        max((one.version for one in before.versions), default=0) + 1,
        location or str(folder.resolve()),
        manifest_sha256(folder),
        metrics,
        str(manifest.get("data", "")),
        int(now() * 1000),
        alias,
        stood.version if stood is not None else 0,
    )
    # The record first: what stands is then always among what can be gone back to.
    await _say(kafka, topic, {f"{RECORD}{release.version}": release, alias: release})
    return release


async def restore(kafka: KafkaConfig, topic: str, release: Release, alias: str = NAME) -> None:
    """A version that stood stands again, as it was: lists name it as they did. One that stood under another alias now
    follows what stands here.
    """
    if release.alias != alias:
        stood = (await known(kafka, topic)).standing.get(alias)
        follows = stood.version if stood is not None else 0
        release = msgspec.structs.replace(release, alias=alias, follows=follows)
    await _say(kafka, topic, {alias: release})


async def _say(kafka: KafkaConfig, topic: str, said: dict[str, Release | None]) -> None:
    await topic_partitions(kafka, [topic])
    async with producer(kafka) as client:
        for key, release in said.items():
            value = None if release is None else msgspec.json.encode(release)
            await client.send_and_wait(topic, value, key=key.encode())


async def withdraw(kafka: KafkaConfig, topic: str, alias: str = NAME) -> None:
    """Take a release back: workers return to the fallback, or to the current release where it stood under an alias."""
    await _say(kafka, topic, {alias: None})
