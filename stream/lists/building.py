"""A `Lineup` is built aside: vectors, index, engine and scores of one catalogue version, its releases and variants.

Not when (`serving.py`, on a thread of its own), and not what a variant or a release is. What is large is made once and
shared: texts of a catalogue that were read for the one before, a model's vectors and index among its variants.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from model import checkpoint
from model.baselines import UserModel
from model.catalog import Catalog, Item
from model.config import RankConfig
from model.encoder import TextEncoder
from model.engine import Engine
from model.fatigue import FatigueConfig
from model.feedback import FeedbackConfig
from model.mix import Mix
from model.online import Counts, OnlineParams, OnlineScores
from model.recommender import Recommender
from model.reweighed import reweighed
from stream.errors import EddylineError, ModelError
from stream.lists.arrivals import told
from stream.lists.depot import Depot
from stream.lists.indexes import Indexes, ItemIndex
from stream.lists.lineup import Lineup
from stream.lists.release import NAME, Release
from stream.lists.variants import FALLBACK, Split, VariantConfig, under
from stream.lists.warming import warm
from stream.trends import Snapshot, TrendsConfig, joined

log = logging.getLogger(__name__)

READERS = 3
"""Text encoders to keep: the fallback's, and those of the newest models that have adapted it."""


class Readers(NamedTuple):
    """What reads for one model: the items' texts, which are remembered on disk; and histories, where profiles are
    documents: what users did is not.
    """

    items: TextEncoder
    documents: TextEncoder


@dataclass(frozen=True, slots=True)
class Served:
    """Everything that lists of one variant are made from; parts that belong to one catalogue version. weights: the
    model's checksum, or FALLBACK, by which profiles are known to be its. candidates: None = as in [recommend].
    """

    name: str
    catalog: Catalog
    engine: Engine
    index: ItemIndex
    online: OnlineScores
    profile_dim: int
    weights: str = FALLBACK
    fatigue: FatigueConfig = field(default_factory=FatigueConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    candidates: int | None = None

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `ItemIndex.search`."""
        return self.index.search(vectors, k)


class Builder:
    """Builds one `Lineup` after another, on one thread; `before` is what the one before has left.

    depot: where releases are; variants: with the shadows; split: who gets which of the others; trends: how counts are
    read.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        device: str,
        indexes: Indexes,
        depot: Depot,
        trends: TrendsConfig,
        window_ttl_ms: int | None,
        rank: RankConfig,
        variants: Mapping[str, VariantConfig],
        split: Split,
    ) -> None:
        self.encoder = encoder
        self._device = device
        self._indexes = indexes
        self._depot = depot
        self._trends = trends
        self._window_ttl_ms = window_ttl_ms
        self._rank = rank
        self._variants = variants
        self._split = split
        self._readers: dict[str, Readers] = {}
        self._read: tuple[Catalog, np.ndarray] | None = None

    def build(
        self,
        items: dict[str, Item],
        version: int,
        releases: Mapping[str, Release],
        snapshot: Sequence[Snapshot],
        before: Lineup | None,
    ) -> Lineup:
        """What is served of a catalogue of this version and its releases.

        Raises:
            HashCollisionError, EddylineError, IndexBuildError: it cannot be; what was served before may go on.
        """
        if before is not None and before.catalog.version == version:  # only a release has come or gone
            catalog = before.catalog
        else:
            catalog = Catalog.build(items if before is None else in_order(items, before.catalog.ids), version)
        texts = self._texts(catalog)
        refused: dict[str, str] = {}
        models = self._models(releases, catalog, texts, self.online(catalog, snapshot), before, refused)
        made: list[tuple[dict[str, Any], Served]] = []
        served: dict[str, Served] = {}
        for name, config in self._variants.items():
            like = config.model_dump(exclude={"share", "shadow"}, exclude_unset=True)
            known = next((one for other, one in made if other == like), None)
            served[name] = known or self._variant(config, models[config.model], texts)
            made.append((like, served[name]))
        emitted = tuple(served[name] for name in self._split.names)
        # a shadow of what everybody gets says nothing
        shadows = {
            name: served[name]
            for name, config in self._variants.items()
            if config.shadow and any(one is not served[name] for one in emitted)
        }
        return Lineup(self._split, emitted, shadows, models, refused)

    def _models(
        self,
        releases: Mapping[str, Release],
        catalog: Catalog,
        texts: np.ndarray,
        online: OnlineScores,
        before: Lineup | None,
        refused: dict[str, str],
    ) -> dict[str, Served]:
        """What each alias that a variant names stands for: aliases of the same folder share all of it. refused: is told
        of each that cannot be served.
        """
        models: dict[str, Served] = {}

        def of(alias: str) -> Served:
            if alias not in models:
                models[alias] = made(alias, releases.get(alias))
            return models[alias]

        def made(alias: str, release: Release | None) -> Served:
            if alias == FALLBACK:
                return self._served(FALLBACK, catalog, texts, None, online)
            if release is None and alias == NAME:
                return of(FALLBACK)
            if release is None:
                log.warning(
                    "a variant names the model %s, and %s is served in its place: nothing was announced by "
                    "`eddyline release announce FOLDER --alias %s`",
                    *(alias, NAME, alias),
                )
                return of(NAME)
            if same := next((served for served in models.values() if served.weights == release.sha256), None):
                return replace(same, name=release.name)
            last = before.models.get(alias) if before is not None else None
            try:
                return self._released(release, catalog, texts, online, last)
            except (EddylineError, ValueError, RuntimeError) as error:  # damaged meanwhile, or for other texts
                log.error("release %s is not served, what was served before goes on: %s", release.name, error)
                refused[alias] = told(release, str(error))
            if last is None or last.engine.given is None:
                return of(FALLBACK)
            return self._served(last.name, catalog, texts, last.engine.given, online, last.weights)

        for config in self._variants.values():
            of(config.model)
        return models

    def _released(
        self, release: Release, catalog: Catalog, texts: np.ndarray, online: OnlineScores, last: Served | None
    ) -> Served:
        """A release, which has made its first lists. A model that is served already is not read again. Raises where it
        cannot be served.
        """
        if last is not None and last.weights == release.sha256 and last.engine.given is not None:
            return self._served(release.name, catalog, texts, last.engine.given, online, release.sha256)
        model = checkpoint.load(self._depot.at(release))
        fits(model, texts.shape[1])
        served = self._served(release.name, catalog, texts, model, online, release.sha256)
        warm(served)
        return served

    def _texts(self, catalog: Catalog) -> np.ndarray:
        """Text vectors f32[N,P] of a catalogue. Only texts that the last one did not have are encoded: looking all up
        again would take the interpreter from those who make lists meanwhile.
        """
        if self._read is None:
            vectors = self.encoder.encode(catalog.texts)
        elif self._read[0] is catalog:
            vectors = self._read[1]
        else:
            before, known = self._read
            rows = before.index_of(catalog.hashes)
            texts, were = catalog.texts, before.texts
            new = [n for n, row in enumerate(rows.tolist()) if row < 0 or were[row] != texts[n]]
            vectors = known[rows] if len(known) else np.zeros((len(rows), known.shape[1]), np.float32)
            if new:
                vectors[new] = self.encoder.encode([texts[n] for n in new])
        self._read = catalog, vectors
        return vectors

    def reading(self, model: UserModel | None) -> Readers:
        """What reads for this model. Encoders that have been loaded are kept, a few: each is as large as BERT."""
        adapter = model.adapter if model is not None else None
        key = adapter.id if adapter is not None else ""
        found = self._readers.pop(key, None)
        if found is None:
            encoder = self.encoder.adapted(adapter)
            found = Readers(encoder, encoder.forgetful())
        self._readers = dict(list(self._readers.items())[1 - READERS :]) | {key: found}
        return found

    def _served(
        self,
        name: str,
        catalog: Catalog,
        texts: np.ndarray,
        model: UserModel | None,
        online: OnlineScores,
        weights: str = FALLBACK,
    ) -> Served:
        """A model as it is without variants."""
        engine = self._engine(catalog, texts, model, self._rank)
        found = self._indexes.of(name, catalog, engine.item_vectors)
        rank = self._rank
        return Served(name, catalog, engine, found, online, texts.shape[1], weights, rank.fatigue, rank.feedback)

    def _variant(self, config: VariantConfig, model: Served, texts: np.ndarray) -> Served:
        """A variant of a model: vectors and index are the model's."""
        if under(self._rank, config):
            return model
        given, mix = reweighed(model.engine.given, config.mix or Mix())
        engine = self._engine(model.catalog, texts, given, config.rank, mix, model.engine)
        rank = config.rank
        return replace(model, engine=engine, fatigue=rank.fatigue, feedback=rank.feedback, candidates=config.candidates)

    def _engine(
        self,
        catalog: Catalog,
        texts: np.ndarray,
        model: UserModel | None,
        rank: RankConfig,
        mix: Mix | None = None,
        like: Engine | None = None,
    ) -> Engine:
        reading = self.reading(model)
        if like is None and model is not None and model.adapter is not None:
            texts = reading.items.encode(catalog.texts)
        return Engine(
            catalog,
            texts,
            model,
            mix,
            device=self._device,
            window_ttl_ms=self._window_ttl_ms,
            encode=reading.documents.encode,
            seen=rank.seen,
            exposure=rank.exposure,
            rules=rank.rules,
            diversity=rank.diversity,
            explore=rank.explore,
            like=like,
            tensors=None if self._indexes.by_tensors else False,
        )

    def online(self, catalog: Catalog, snapshot: Sequence[Snapshot]) -> OnlineScores:
        """Scores as of the newest bucket that was counted: event time, so that a replay scores as the past did."""
        c = joined(snapshot)
        pair, met = c.b != 0, c.b == 0
        counts = Counts(c.a[pair], c.b[pair], c.bucket[pair], c.n[pair], c.a[met], c.bucket[met], c.n[met])
        now = int(counts.item_bucket.max(initial=0))
        params = OnlineParams(bucket_ms=self._trends.bucket_ms, kin=self._trends.kin)
        return OnlineScores.build(catalog, counts, now, params).prepared()


def fits(model: Recommender, dim: int) -> None:
    """Raises ModelError where a model reads vectors of texts of another length than `dim`."""
    c = model.config
    if c.texts != "tfidf" and c.text_dim - c.own_dim != dim:
        raise ModelError(
            f"{model.name} reads text vectors of {c.text_dim - c.own_dim} dimensions, and the text encoder makes {dim}",
            "set [encoder] to what it was trained with, or train it with what is set: eddyline train",
        )


def in_order(items: dict[str, Item], known: Sequence[str]) -> dict[str, Item]:
    """The same, those that are known first and as they are there. What is nearly in order is sorted at once; while a
    million names are that are not, no other thread gets the interpreter.
    """
    return {name: items[name] for name in known if name in items} | items
