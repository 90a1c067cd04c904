"""Histories in, ranked items out, a micro-batch at a time.

Not an index (the candidate search is handed in as a function), not a store, and not aware of why it is asked. On a CPU
lists are made by numpy, from what an index finds; elsewhere by tensors (`device/`), from all items.
One engine belongs to one catalogue snapshot and one model; a new snapshot or model makes a new engine, and
the old one is dropped when nothing uses it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from model.arrange import Arranger
from model.baselines import Fallback, UserModel
from model.blended import Blended
from model.candidates import comparing, distinct, more_of_groups
from model.catalog import Catalog
from model.config import Seen
from model.device.arriving import Batch
from model.device.lists import Lists, Shelf, Wish
from model.diversity import DiversityConfig
from model.explore import ExploreConfig
from model.exposure import Bounds, ExposureConfig
from model.fusion import Fused
from model.habits import Term
from model.history import ACTION_CODE, Histories, weight_table
from model.leaning import Lean, Leaner
from model.longterm import Encode
from model.mix import EVEN, Mix, combined
from model.near import Compare, Search, nearest
from model.online import OnlineScores, looked_up
from model.people import About, Words
from model.peruser import PerUser, Shown, best_first
from model.reasons import RankedLists, Reasoner, Reasons
from model.reweighed import sharing
from model.rules import Asked, Rules, RulesConfig
from model.terms import Terms


class Engine:
    """One model over one catalogue. Thread-safe: nothing changes after it is made.

    text_vectors f32[N,P]: one per row of the catalogue. model: None for the fallback. mix: None for the
    model's own. device: where vectors are made and compared. window_ttl_ms: see `Histories.window`. encode: a
    text encoder, for models whose profiles are documents. seen: whether what a user has met may be shown. exposure:
    bounds of what a group of items may take of a list; rules: what else is shown to whom; None = none. diversity,
    explore: how lists are re-ranked, and what of them is drawn; None = not at all. like: an engine over the same
    catalogue, texts and model (or one that is only `reweighed`), on the same device: what is large is shared with it.
    tensors: whether lists are made by tensors; None = where the device is no CPU.
    """

    def __init__(
        self,
        catalog: Catalog,
        text_vectors: NDArray[np.float32],
        model: UserModel | None = None,
        mix: Mix | None = None,
        device: str = "cpu",
        window_ttl_ms: int | None = None,
        encode: Encode | None = None,
        seen: Seen = "exclude",
        exposure: ExposureConfig | None = None,
        rules: RulesConfig | None = None,
        diversity: DiversityConfig | None = None,
        explore: ExploreConfig | None = None,
        like: Engine | None = None,
        tensors: bool | None = None,
    ) -> None:
        if len(text_vectors) != len(catalog):
            raise ValueError(f"{len(text_vectors)} text vectors for {len(catalog)} items: encode the catalogue again")
        self.catalog = catalog
        self.seen: Seen = seen
        self.given = model
        self._ttl = window_ttl_ms
        if like is None:
            self._begin(model or Fallback(text_vectors.shape[1], mix or Mix()), text_vectors, mix, device, encode)
        else:
            self._share(like, mix)
        self.rules = Rules(rules or RulesConfig(), catalog, seen)
        self.bounds = Bounds(exposure or ExposureConfig(), catalog)
        self.arranger = Arranger(diversity, explore, self.bounds, self.item_vectors)
        self._shelf: Shelf | None = None
        if len(catalog) and (tensors or (tensors is None and not self._items.is_cpu)):
            self._shelf = (like and like._shelf) or Shelf.of(catalog, self._items, self._profile_dim)
            self._lists = Lists(self._shelf, self.rules, self.bounds, self.arranger.diversity, self.mix)
        self._arrived: tuple[Histories, Batch] | None = None
        self._inference = torch.inference_mode if isinstance(model, torch.nn.Module) else nullcontext
        self._recent: tuple[Histories, tuple[Histories, NDArray[np.int32]]] | None = None

    def _begin(
        self, model: UserModel, texts: NDArray[np.float32], mix: Mix | None, device: str, encode: Encode | None
    ) -> None:
        """What belongs to the items of the catalogue, made anew."""
        catalog = self.catalog
        texts = model.contents(catalog, texts)
        self._profile_dim = texts.shape[1]
        self.mix = mix or model.mix
        self.model = Blended(model, texts.shape[1], self.mix.text) if self.mix.text else model
        self._long_term = self.model.long_term(texts, catalog.titles, encode)
        if isinstance(model, torch.nn.Module):
            model.to(device)
        with torch.inference_mode():
            items = self.model.item_vectors(catalog.hashes, texts).to(device)
        self.item_vectors: NDArray[np.float32] = items.cpu().numpy()
        # one row at least: where there is no item, row 0 is read and masked
        self._items = items if len(items) else torch.zeros(1, self.model.dim, device=device)
        self._reasoner = Reasoner(catalog)
        self.habits = None if self.model.habits is None else self.model.habits.over(catalog)
        self._alike: Engine | None = None

    def _share(self, like: Engine, mix: Mix | None) -> None:
        """The same, of another engine."""
        self.mix = mix or like.mix
        self.model = sharing(like.model, self.given, self.mix)
        self._long_term, self._profile_dim, self._reasoner = like._long_term, like._profile_dim, like._reasoner
        self.habits = like.habits
        self.item_vectors, self._items = like.item_vectors, like._items
        self._alike = like if self.given is like.given and self.mix == like.mix else None

    @property
    def name(self) -> str:
        """What made the vectors: "fallback", or a model's name and version."""
        return self.model.name

    @property
    def dim(self) -> int:
        """Length of user and item vectors."""
        return self.model.dim

    def profiles(self, h: Histories) -> list[NDArray[np.float32]]:
        """Long-term profiles of these histories, f32[S,P] each (S up to 8 for 128 interactions, 0 where
        nothing is known).
        """
        return self._long_term.profiles(h, self.catalog.index_of(h.items))

    def encode(
        self, h: Histories, profiles: list[NDArray[np.float32]], lean: Lean | None = None, explained: bool = False
    ) -> Fused:
        """User vectors: the window of each history, fused with its profile (an empty f32[0,P] is a profile
        too), weighed as the mix wants windows of this length to be, and with the interests that are stated. explained:
        `rank` will be asked for reasons, which then cost less.
        """
        with self._inference():
            if self._shelf is not None:  # what comes in stays on the device for the steps behind
                batch = self._shelf.batch(h, profiles)
                self._arrived = h, batch
                fused = self.model.read(self._items, batch.reading(self.model.window, self._ttl), explained)
            else:
                fused = self.model.encode(*self.window_rows(h), self._items, profiles, explained)
            if self.mix.by_window != EVEN:
                weight = self._window_weight(self.window_rows(h)[0], fused)
                fused = replace(fused, vectors=fused.vectors * weight[:, None], long=fused.long * weight[:, None])
            return fused if lean is None else lean.fused(fused)

    def lean(self, h: Histories, about: About | None, online: OnlineScores) -> Lean | None:
        """What is known of the users of these histories beside them, and still weighs; the fallback reads none."""
        if about is None or about.nothing or self.given is None:
            return None
        return self._leaner.lean(about, h.lengths, online.popularity)

    @cached_property
    def _leaner(self) -> Leaner:
        if self._alike is not None:
            return self._alike._leaner
        return Leaner(self.catalog, self._as_clicked, self.model.leanings)

    def _as_clicked(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """User vectors f32[B,D] of those who clicked these, catalogue rows i32[B,K], left-padded with -1, at one time
        and did nothing else.
        """
        there, click = rows >= 0, ACTION_CODE["click"]
        h = replace(
            Histories.empty(*rows.shape),
            items=np.where(there, self.catalog.hashes[rows], np.uint64(0)),
            actions=np.where(there, click, 0).astype(np.uint8),
            weights=np.where(there, weight_table()[click], 0).astype(np.float32),
            lengths=there.sum(1).astype(np.int32),
        )
        return self.encode(h, [np.zeros((0, 0), np.float32)] * len(h)).vectors.cpu().numpy()

    def _window_weight(self, window: Histories, fused: Fused) -> torch.Tensor:
        return torch.from_numpy(self.mix.window_weight(window.lengths)).to(fused.vectors.device)

    def window_rows(self, h: Histories) -> tuple[Histories, NDArray[np.int32]]:
        """The windows and their catalogue rows i32[B,K]; items outside the catalogue are closed up, so -1 is
        only on the left.
        """
        recent = self._recent  # each step of a list asks for those of the same histories
        if recent is not None and recent[0] is h:
            return recent[1]
        window = h.window(self.model.window, self._ttl)
        rows = self.catalog.index_of(window.items)
        if ((rows[:, :-1] >= 0) & (rows[:, 1:] < 0)).any() or (rows[:, -1:] < 0).any():
            window = window.only(rows >= 0)
            rows = self.catalog.index_of(window.items)
        self._recent = h, (window, rows)
        return window, rows

    def shown(self, h: Histories, hidden: Words | None = None, asked: Asked | None = None) -> Shown:
        """Items that may be shown to whom; see `Rules.shown`."""
        return self.rules.shown(h, hidden, asked)

    def allowed(self, h: Histories) -> NDArray[np.bool_]:
        """`shown` of all items, bool[B,N]."""
        return self.shown(h).every()

    def lists(
        self,
        h: Histories,
        fused: Fused,
        search: Search,
        online: OnlineScores,
        n: int,
        sought: int,
        reasons: bool = True,
        lean: Lean | None = None,
        hidden: Words | None = None,
        asked: Asked | None = None,
        seeds: NDArray[np.uint64] | None = None,
        tired: PerUser | None = None,
    ) -> RankedLists:
        """Lists of n items, or of as many as were asked for: `candidates`, so many by vector and by counts, `rank`ed
        within the rules. Made by tensors all items are compared, `search` is not asked, and candidates are the best of
        all by the score itself; lists that are drawn, or have habits in them, are made by numpy.
        """
        if self._shelf is not None and len(h) and self.habits is None and not self.arranger.explore.on:
            followers = self.followers(h, online) if online.kin is not None else None
            popularity = lean.popularity if lean is not None else None
            return self._tensors(
                self._shelf, h, fused, online, Wish(n, sought, popularity, hidden, asked, tired, followers), reasons
            )
        followers, shown = self.followers(h, online), self.shown(h, hidden, asked)
        terms = self.rules.terms(shown, n, asked)
        n = n if terms is None else terms.width
        found = self.candidates(h, fused, search, online, max(sought, n), followers, lean, shown, terms)
        return self.rank(h, fused, found, online, n, reasons, followers, lean, terms, seeds, shown, tired)

    def _tensors(
        self, shelf: Shelf, h: Histories, fused: Fused, online: OnlineScores, wish: Wish, reasons: bool
    ) -> RankedLists:
        arrived = self._arrived
        batch = arrived[1] if arrived is not None and arrived[0] is h else shelf.batch(h, [])
        with torch.inference_mode():
            made = self._lists.of(batch, batch.reading(self.model.window, self._ttl).rows, fused, online, wish)
        ranked = RankedLists(made.items, made.scores, None)
        if made.arranged:
            ranked = replace(ranked, propensity=(made.items >= 0).astype(np.float32))
        if not reasons:
            return ranked
        popularity = online.popularity if wish.popularity is None else wish.popularity
        why = self._explained(h, fused, made.items, made.tastes, made.windows, online, popularity)
        return replace(ranked, reasons=why)

    def followers(self, h: Histories, online: OnlineScores) -> PerUser:
        """What follows the windows of these histories, by counts."""
        return online.followers(self.window_rows(h)[1])

    def candidates(
        self,
        h: Histories,
        fused: Fused,
        search: Search,
        online: OnlineScores,
        m: int,
        followers: PerUser | None = None,
        lean: Lean | None = None,
        shown: Shown | None = None,
        terms: Terms | None = None,
    ) -> NDArray[np.int32]:
        """Catalogue rows worth ranking, i32[B,M], -1 = none: the m nearest by vector, the m strongest by counts, those
        met before where that speaks for them, and what the terms of a list ask for; each once.

        Only items that are `shown`. A user who may be shown at least m items gets at least m. followers, shown: as
        `followers` and `shown` have them, where they are there already.
        """
        n = len(self.catalog)
        if not n or not len(h):
            return np.full((len(h), 0), -1, np.int32)
        shown = self.shown(h) if shown is None else shown
        vectors, compare = fused.vectors.cpu().numpy(), self._comparing(fused)
        one_of, places = (None, 1) if terms is None else (terms.one_of, terms.width)
        near = nearest(search, compare, vectors, shown, m, places, one_of)
        followers = self.followers(h, online) if followers is None else followers
        popularity = lean.popularity if lean is not None else None
        found = [near, online.strongest(followers, self.mix, shown, min(m, n), popularity)]
        if (self.mix.repeat or self.habits is not None) and self.rules.returns:
            met = self.catalog.index_of(h.items)
            found.append(np.where(shown.at(met), met, -1))
        if terms is not None:
            found.append(terms.pinned)
            found += more_of_groups(terms, np.concatenate(found, axis=1), shown, compare, online, self.mix)
        return distinct(np.concatenate(found, axis=1).astype(np.int32))

    def _comparing(self, fused: Fused) -> Compare:
        """Inner products of users, by their number in `fused`, with items, by catalogue row."""
        return comparing(fused.vectors, self._items, self.item_vectors)

    def rank(
        self,
        h: Histories,
        fused: Fused,
        candidates: NDArray[np.int32],
        online: OnlineScores,
        n: int,
        reasons: bool = True,
        followers: PerUser | None = None,
        lean: Lean | None = None,
        terms: Terms | None = None,
        seeds: NDArray[np.uint64] | None = None,
        shown: Shown | None = None,
        tired: PerUser | None = None,
    ) -> RankedLists:
        """The n best of each user's candidates i32[B,M] (-1 = none), best first; ties by catalogue row. With terms, or
        where lists are diverse or explored, as `arrange.py` fills them; then n is that of the terms.

        Scores are probabilities: the softmax over the user's candidates. Reasons cost one encoding of the
        newest five interactions' absence each (see `reasons.py`). seeds u64[B]: what is drawn follows from them. shown:
        which of the items with few interactions may be drawn, where it is there already. tired: nats that items lose.
        """
        new = None
        if (terms is not None or self.arranger.any) and len(self.catalog):
            terms = terms or Terms.plain(len(h), n)
            if self.arranger.explore.new_items and shown is None:
                shown = self.shown(h)
            candidates, new = self.arranger.candidates(candidates, terms, shown, online, seeds)
        there = candidates >= 0
        at = np.maximum(candidates, 0)
        neural, tastes = self._compared(fused, at)
        related = (self.followers(h, online) if followers is None else followers).at(at)
        own = online.returning(self.catalog.index_of(h.items), self.mix).at(at) if self.mix.repeat else None
        popularity = popular_to(lean, online)
        scores = combined(neural, related, looked_up(popularity, at), self.mix, own)
        habits = self.habits and self.habits.of(h, self.catalog.index_of(h.items), online)
        scores = habits.over(scores, at) if habits else scores
        scores = np.where(there, scores if tired is None else scores - tired.at(at), -np.inf)
        arranged = None
        if terms is not None and new is not None:
            scores = scores if terms.boosts is None else scores + terms.boosts[at]
            arranged = self.arranger.lists(candidates, scores, new, terms, online, seeds)
            best, listed = np.maximum(arranged.column, 0), arranged.column >= 0
        else:
            if self.bounds.any:
                there = self.bounds.kept(at, scores, online, n)
                scores = np.where(there, scores, -np.inf)
            best = best_first(at, scores)[:, :n]
            listed = np.take_along_axis(there, best, 1)
        share = np.take_along_axis(_softmax(scores), best, 1)
        items = np.where(listed, np.take_along_axis(candidates, best, 1), np.int32(-1))
        ranked = RankedLists(items, np.where(listed, share, np.float32(0)), None)
        if arranged is not None:
            ranked = replace(ranked, propensity=arranged.propensity, explored=arranged.explored)
        if not reasons or not len(h):
            return ranked
        taste, window = (np.take_along_axis(_centred(x, there), best, 1) for x in (tastes, neural - tastes))
        return replace(ranked, reasons=self._explained(h, fused, items, taste, window, online, popularity, habits))

    def _compared(self, fused: Fused, at: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inner products of items, catalogue rows i32[B,M], with their user's vector and with the profile's part of it:
        f32[B,M] each. On a CPU by numpy: for few users torch's operations cost more than what they compute.
        """
        if self._items.is_cpu:
            users_BD2 = np.stack([fused.vectors.numpy(), fused.long.numpy()], 2)
            found_BM2 = np.matmul(self.item_vectors.take(at, 0), users_BD2)
        else:
            items_BMD = self._items[torch.from_numpy(at).to(self._items.device)]
            found_BM2 = torch.bmm(items_BMD, torch.stack([fused.vectors, fused.long], 2)).cpu().numpy()
        return found_BM2[..., 0], found_BM2[..., 1]

    def _explained(
        self,
        h: Histories,
        fused: Fused,
        lists: NDArray[np.int32],
        tastes: NDArray[np.float32],
        windows: NDArray[np.float32],
        online: OnlineScores,
        popularity: NDArray[np.float32],
        habits: Term | None = None,
    ) -> Reasons:
        """Reasons of lists i32[B,n]. `tastes`, `windows`, `popularity`: see `Reasoner.explain`."""
        window, rows = self.window_rows(h)

        def encode_window(windows: Histories, window_rows: NDArray[np.int32]) -> NDArray[np.float32]:
            none = [np.zeros((0, 0), np.float32)] * len(windows)
            return self.model.encode(windows, window_rows, self._items, none).vectors.cpu().numpy()

        with self._inference():
            if self.mix.by_window != EVEN:  # `vectors` and `long` are weighed already
                fused = replace(fused, short=fused.short * self._window_weight(window, fused))
            return self._reasoner.explain(
                h,
                window,
                rows,
                fused,
                self.item_vectors,
                lists,
                tastes,
                windows,
                encode_window,
                online,
                self.mix,
                popularity,
                habits and habits.returned(np.maximum(lists, 0)),
            )


def popular_to(lean: Lean | None, online: OnlineScores) -> NDArray[np.float32]:
    """How popular every item is: with all f32[N], or to each user f32[B,N] where something is known of them."""
    return online.popularity if lean is None or lean.popularity is None else lean.popularity


def _centred(values: NDArray[np.float32], there: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Less the mean of what is there in each row, f32[B,M]."""
    return values - ((values * there).sum(1) / np.maximum(there.sum(1, dtype=np.float32), 1))[:, None]


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row by row; -inf gives 0, and a row of nothing else gives zeros."""
    top = scores.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1e-30)).astype(np.float32)
