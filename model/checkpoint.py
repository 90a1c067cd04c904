"""A model as a folder: written whole, checked whole.

Not a registry of models and not a release: one folder, one model.

    model.safetensors   the weights
    config.json         what the model is made of (`ModelConfig`, unknown keys refused)
    metrics.json        what it reached when it was trained
    groups.safetensors  what groups of users lean to; where users have attributes
    habits.safetensors  what users come back to; where that was learned
    adapter.safetensors what was learned to change in the text encoder; where texts were adapted
    experiment.json     how it was trained: config, data hash, metrics, curve, versions; where `train` made it
    manifest.json       format, time, data hash, and the sha256 of the others

`save` writes beside the target and renames at the end, so a folder that exists is complete. `load` believes
nothing that the manifest does not vouch for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors import numpy as arrays
from safetensors.torch import load_file, save_file

from model.adapter import Adapter
from model.config import ModelConfig
from model.dataset import Events
from model.habits import Habits
from model.leaning import Leanings
from model.recommender import Recommender

FORMAT = 1
WEIGHTS, CONFIG, METRICS, MANIFEST = "model.safetensors", "config.json", "metrics.json", "manifest.json"
EXPERIMENT, GROUPS, ADAPTER = "experiment.json", "groups.safetensors", "adapter.safetensors"
HABITS = "habits.safetensors"


T = TypeVar("T", bound=BaseModel)


class ModelFolderError(ValueError):
    """A folder that is not a whole model of ours; the message names the file and the remedy."""


class Manifest(BaseModel):
    """What vouches for the other files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    model: str
    created: str
    data: str
    sha256: dict[str, str]
    bytes: dict[str, int] = {}
    """Of each file, so that one that was cut short is told as such; folders of before have none."""


def data_hash(events: Events) -> str:
    """Names the events a model was trained on: sha256 over their columns, user and item ids included."""
    digest = hashlib.sha256()
    for ids in (events.user, events.item):
        digest.update("\0".join(ids.tolist()).encode())
    for column in (events.action, events.ts):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def save(folder: Path, model: Recommender, created: datetime, data: str = "") -> Manifest:
    """Writes the model to `folder`, which must not exist yet or be a model folder of ours (it is then
    replaced).

    created: the time to put into the manifest. data: see `data_hash`. Raises ModelFolderError where something
    else is in the way.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise ModelFolderError(f"{folder}: exists and is not a model folder; choose another path")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, partial / WEIGHTS)
    (partial / CONFIG).write_text(model.config.model_dump_json(indent=2))
    (partial / METRICS).write_text(json.dumps(model.metrics, indent=2))
    written = [WEIGHTS, CONFIG, METRICS]
    if model.record:
        record = {"data": data, "metrics": model.metrics, **model.record}
        (partial / EXPERIMENT).write_text(json.dumps(record, indent=2))
        written.append(EXPERIMENT)
    if model.leanings is not None:
        arrays.save_file(model.leanings.arrays(), partial / GROUPS)
        written.append(GROUPS)
    if model.habits is not None:
        arrays.save_file(model.habits.arrays(), partial / HABITS)
        written.append(HABITS)
    if model.adapter is not None:
        model.adapter.save(partial / ADAPTER)
        written.append(ADAPTER)
    manifest = Manifest(
        format=FORMAT,
        model=model.name,
        created=created.astimezone(UTC).isoformat(timespec="seconds"),
        data=data,
        sha256={name: _sha256(partial / name) for name in written},
        bytes={name: (partial / name).stat().st_size for name in written},
    )
    (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return manifest


def load(folder: Path) -> Recommender:
    """The model in `folder`, ready to serve. Raises ModelFolderError for a folder that is missing,
    incomplete, damaged or foreign.
    """
    named = manifest(folder).sha256
    config = _valid((folder / CONFIG).read_bytes(), folder / CONFIG, ModelConfig)
    model = Recommender(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as e:
        raise ModelFolderError(
            f"{folder / WEIGHTS}: does not fit {CONFIG} ({str(e).splitlines()[0]}); train the model again"
        ) from e
    model.metrics = json.loads((folder / METRICS).read_text())
    if GROUPS in named:
        model.leanings = Leanings.of(arrays.load_file(folder / GROUPS))
    if HABITS in named:
        try:
            model.habits = Habits.of(arrays.load_file(folder / HABITS))
        except (KeyError, ValueError) as e:
            raise ModelFolderError(f"{folder / HABITS}: {e}; train the model again") from e
    if ADAPTER in named:
        model.adapter = Adapter.load(folder / ADAPTER)
    if (folder / EXPERIMENT).is_file():
        model.record = json.loads((folder / EXPERIMENT).read_text())
    return model.eval()


def manifest(folder: Path) -> Manifest:
    """The folder's manifest, after every file it names was found to be what it says. Raises ModelFolderError."""
    if not (folder / MANIFEST).is_file():
        raise ModelFolderError(
            f"{folder}: no {MANIFEST} there, so no model folder; name one that `eddyline train` wrote"
        )
    found = parsed_manifest((folder / MANIFEST).read_bytes(), folder / MANIFEST)
    for name in found.sha256:
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder / name}: missing; copy the folder again, whole")
        if _sha256(folder / name) != found.sha256[name]:
            size, said = (folder / name).stat().st_size, found.bytes.get(name, 0)
            short = f" (cut short: {size:,} of {said:,} bytes)" if size < said else ""
            raise ModelFolderError(f"{folder / name}: not the file the manifest names{short}; copy the folder again")
    return found


def parsed_manifest(raw: bytes, path: object) -> Manifest:
    """What a manifest says, of files that may not be here yet. path: by which it is called. Raises ModelFolderError:
    it is none, of a format that this version does not read, or names files elsewhere than in its folder.
    """
    try:
        number = json.loads(raw)["format"]
    except (ValueError, LookupError, TypeError) as e:
        raise ModelFolderError(f"{path}: no manifest ({e!r}); copy the folder again, or train the model again") from e
    if number != FORMAT:
        raise ModelFolderError(f"{path}: {unreadable(number)}")
    found = _valid(raw, path, Manifest)
    for name in dict.fromkeys((WEIGHTS, CONFIG, METRICS, *found.sha256)):
        if name not in found.sha256:
            raise ModelFolderError(f"{path}: does not name {name}; copy the folder again, or train the model again")
        if name in ("", ".", "..", MANIFEST) or not set(name).isdisjoint("/\\\0"):
            raise ModelFolderError(f"{path}: {name!r} is no file of its folder; do not use it, train the model again")
    return found


def unreadable(number: object) -> str:
    """What is said of a format that is not ours."""
    newer = isinstance(number, int) and number > FORMAT
    remedy = "install the eddyline here that made it, or a later one" if newer else "train the model again"
    return f"format {number}, this version reads {FORMAT}; {remedy}"


def _valid(raw: bytes, path: object, kind: type[T]) -> T:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelFolderError(f"{path}: {where}: {first['msg']}; train the model again") from e


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
