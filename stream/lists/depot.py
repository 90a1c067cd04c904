"""Where model folders of releases are on this machine: used in place, or fetched once, checked, and kept for a while.

Not what a release is (`release.py`), and not when it is fetched (`arrivals.py`). A location is a folder, `file://`, or
a URL that fsspec reads (http, https, and s3 with `eddyline[s3]`). What is fetched is put together aside and named by
its manifest's checksum once every file in it was found to be what that says: a folder under its name is whole. Nothing
half fetched is gone on from; it is fetched again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from model.checkpoint import MANIFEST, ModelFolderError, manifest, parsed_manifest
from stream.errors import ConfigError, EddylineError, ModelError
from stream.lists.release import FORMAT, Release, manifest_sha256

log = logging.getLogger(__name__)

MANIFEST_BYTES = 1 << 20
FILE_BYTES = 8 << 30
"""The most that is fetched of a manifest; and of a file whose manifest is too old to say how long it is."""
CHUNK = 1 << 20
SPARE = 3
"""Folders to keep beside those that stand: a rollback then fetches nothing."""
PARTIAL = ".partial"
DROP_PARTIAL_AFTER_S = 86_400.0
CONNECT_S, READ_S = 10, 60
"""How long an HTTP server may take to be reached, and for each next piece."""


class Depot:
    """The folders of releases. folder: where fetched ones are kept, shared by all processes of this machine that follow
    the same topic.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def at(self, release: Release) -> Path:
        """Its folder here, every file found to be what was announced; fetched if need be, which takes its time.

        Raises:
            ModelError, ModelFolderError: it cannot be had, is not what was announced, or is of a later version of ours.
            ConfigError: what reads its location is not installed.
        """
        if release.format > FORMAT:
            raise ModelError(
                f"{release.name} was announced by a later eddyline (format {release.format}, this one reads {FORMAT})",
                "install that version here, or announce a model with this one",
            )
        if (folder := local(release.location)) is not None:
            if manifest_sha256(folder) != release.sha256:
                raise _another(str(folder), release.name)
            manifest(folder)
            return folder
        return self.fetched(release.location, release.sha256, release.name)

    def look(self, location: str) -> Path:
        """The folder that is at a location now, on this machine. Raises as `at` does."""
        if (folder := local(location)) is not None:
            manifest(folder)
            return folder
        with _reaching(location):
            files, root = _opened(location)
            raw = _read(files, f"{root}/{MANIFEST}")
        return self.fetched(location, hashlib.sha256(raw).hexdigest(), location)

    def fetched(self, location: str, sha256: str, name: str) -> Path:
        """The folder of this checksum that is at a URL, kept here from now on; name: what it is called in errors."""
        kept = self._folder / sha256
        if kept.is_dir():
            try:
                if manifest_sha256(kept) == sha256:
                    manifest(kept)
                    os.utime(kept, (self._clock(), self._clock()))
                    return kept
            except (ModelError, ModelFolderError) as error:
                log.warning("%s is fetched again: %s", name, error)
            shutil.rmtree(kept, ignore_errors=True)
        with _reaching(location):
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(PARTIAL, f"{sha256}.", self._folder))
            try:
                _download(location, sha256, name, partial)
                manifest(partial)
                partial.chmod(0o755)
                try:
                    partial.rename(kept)
                except OSError:
                    if not kept.is_dir():  # or another process was first, and it is the same
                        raise
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return kept

    def forget_all_but(self, checksums: Collection[str]) -> None:
        """Folders that were fetched and do not stand any more go, but for the few that were used last."""
        others: list[tuple[float, Path]] = []
        for folder in self._folder.glob("*"):
            with suppress(OSError):
                used = folder.stat().st_mtime
                if not folder.name.endswith(PARTIAL) and folder.name not in checksums:
                    others.append((used, folder))
                elif folder.name.endswith(PARTIAL) and used < self._clock() - DROP_PARTIAL_AFTER_S:
                    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        for _, folder in sorted(others, reverse=True)[SPARE:]:
            shutil.rmtree(folder, ignore_errors=True)
            log.info("removed %s, which is not served any more", folder)


def local(location: str) -> Path | None:
    """The folder that a location is on this machine; None for what must be fetched."""
    if location.startswith("file://"):
        return Path(url2pathname(urlsplit(location).path))
    return None if "://" in location else Path(location)


def _download(location: str, sha256: str, name: str, to: Path) -> None:
    files, root = _opened(location)
    raw = _read(files, f"{root}/{MANIFEST}")
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise _another(location, name)
    said = parsed_manifest(raw, f"{location}/{MANIFEST}")
    sizes = {file: said.bytes.get(file, FILE_BYTES) for file in said.sha256}
    needed, free = sum(said.bytes.values()), shutil.disk_usage(to).free
    if needed > free:
        raise ModelError(
            f"{name} needs {needed:,} bytes, and {to.parent} has {free:,} left",
            "make room there, or set EDDYLINE_CACHE to a larger disk",
        )
    for file, size in sizes.items():
        got = _copied(files, f"{root}/{file}", to / file, size)
        if got != said.bytes.get(file, got):
            raise ModelError(
                f"{location}/{file} has {'more than ' if got > size else ''}{min(got, size):,} of {size:,} bytes, "
                "so it is not the file the manifest names",
                "upload the folder again, whole, manifest.json last",
            )
    (to / MANIFEST).write_bytes(raw)


def _copied(files: Any, source: str, to: Path, most: int) -> int:
    """Bytes that were read: `most`, or one more where there are more."""
    got = 0
    with files.open(source, "rb") as stream, to.open("wb") as out:
        while got <= most and (piece := stream.read(min(CHUNK, most + 1 - got))):
            out.write(piece)
            got += len(piece)
    return got


def _read(files: Any, source: str) -> bytes:
    with files.open(source, "rb") as stream:
        return stream.read(MANIFEST_BYTES)


def _opened(location: str) -> tuple[Any, str]:
    """The file system of a URL, and the folder's path in it."""
    from fsspec.core import url_to_fs

    if "::" in location:  # a chain of file systems would be unpacked on the way
        raise ModelError(f"{location} is more than one URL", "announce one: s3://bucket/models/7")
    options: dict[str, Any] = {}
    if location.startswith("http"):
        from aiohttp import ClientTimeout

        options["client_kwargs"] = {"timeout": ClientTimeout(None, sock_connect=CONNECT_S, sock_read=READ_S)}
    files, root = url_to_fs(location, **options)
    files.invalidate_cache()  # what was wrong the last time may have been mended
    return files, root.rstrip("/")


@contextmanager
def _reaching(location: str) -> Iterator[None]:
    """Says what to do where a location cannot be read. Every library below fsspec has errors of its own."""
    try:
        yield
    except (EddylineError, ModelFolderError):
        raise
    except ImportError as error:
        raise ConfigError(
            f"{location} cannot be read: {error}", "install what reads it; for s3://: pip install 'eddyline[s3]'"
        ) from error
    except Exception as error:
        cause = error.__cause__ or error  # fsspec calls whatever an HTTP server says, or does not say, a missing file
        if isinstance(error, FileNotFoundError) and (cause is error or getattr(cause, "status", None) == 404):
            raise ModelError(
                f"{location} is no model folder: {error} is not there",
                "upload the folder whole, manifest.json last, and announce it again",
            ) from error
        raise ModelError(
            f"{location} cannot be read: {type(cause).__name__}: {cause}",
            "check that this machine reaches it and may read it; where credentials are needed, they are those of its "
            "library (AWS_ACCESS_KEY_ID and so on), never part of the location",
        ) from error


def _another(location: str, name: str) -> ModelError:
    return ModelError(
        f"{location} is not what was announced as {name}",
        f"announce it again: eddyline release announce {location}",
    )
