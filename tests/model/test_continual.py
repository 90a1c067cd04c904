"""Going on from a model: what is learned again, where new items begin, and what holds it to what it was."""

import math

import numpy as np
import pytest
import torch

from model import continual
from model.catalog import Catalog, Item
from model.config import ContinualConfig, ModelConfig, TrainConfig
from model.continual import ContinualError, chosen, divergence, first_new, place_ids, unmet
from model.dataset import Events
from model.engine import Engine
from model.longterm import Pooled
from model.loss import NEVER, answers
from model.recommender import Recommender
from model.replay import timeline
from model.sequences import batch, sequences, windows
from model.train import train
from tests.model.worlds import RING, met, ring_walks, shelf, text_vectors

TEXT = text_vectors(RING)
TINY = TrainConfig(
    model=ModelConfig(short_term="cnn", dim=16, layers=1, window=8),
    epochs=12,
    batch=8,
    learning_rate=1e-2,
    held_out=0.2,
    refit=False,
)


def two_periods(steps: int = 9) -> tuple[Events, int]:
    """Walks round the ring, then walks of other users the other way about; and when the first ended."""
    one, _ = ring_walks(users=40, steps=steps)
    two, _ = ring_walks(users=40, steps=steps, seed=1)
    back = np.array([f"i{-int(i[1:]) % RING:02}" for i in two.item], object)
    until = int(one.ts[-1])
    users = np.array([f"v{u}" for u in two.user], object)
    columns = ((one.user, users), (one.item, back), (one.action, two.action), (one.ts, until + 1000 + two.ts))
    user, item, action, ts = (np.concatenate(c) for c in columns)
    return Events(user, item, action, ts, np.full(len(ts), np.nan, np.float32)), until


@pytest.fixture(scope="module")
def parent() -> Recommender:
    events, catalog = ring_walks(users=40)
    return train(events, catalog, TEXT, TINY)


def forwards(model: Recommender) -> float:
    """How likely the next on the ring is to the model, where a walk goes forwards; a mean over places."""
    engine = Engine(shelf(RING), TEXT, model)
    h = met(*([k % RING, (k + 1) % RING, (k + 2) % RING] for k in range(RING)))
    scores = engine.encode(h, engine.profiles(h)).vectors.numpy() @ engine.item_vectors.T
    scores = np.where(engine.allowed(h), scores, -np.inf)
    share = np.exp(scores - scores.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return float(np.mean([share[k, (k + 3) % RING] for k in range(RING)]))


def gone_on(parent: Recommender, **how: float) -> Recommender:
    events, until = two_periods()
    going_on = ContinualConfig(rate=1.0, **how)
    return train(events, shelf(RING), TEXT, TINY.model_copy(update={"continual": going_on}), start=parent, since=until)


def apart(parent: Recommender, model: Recommender) -> float:
    """How far a model's answers to the new period's windows are from those of its parent."""
    events, until = two_periods()
    line = timeline(events, shelf(RING))
    data = sequences(line, len(line), Pooled(TEXT), 8)
    cuts = chosen(
        data, windows(data, 8, np.random.default_rng(0)), first_new(line, until), 0.0, np.random.default_rng(0)
    )
    some, text = batch(data, cuts, 8, RING), torch.from_numpy(TEXT)
    met = torch.from_numpy(some.met)
    with torch.inference_mode():
        then, now = (answers(m, some, data, text).masked_fill(met, NEVER) for m in (parent, model))
    return divergence(then, now).item()


def test_a_new_period_is_learned_and_replay_and_distillation_each_keep_the_old(parent: Recommender):
    bare, replayed = gone_on(parent, replay=0.0), gone_on(parent, replay=1.0)
    distilled = gone_on(parent, replay=0.0, distill=5.0)
    for model in (bare, replayed, distilled):  # who now walks back is followed
        assert model.metrics["validation"]["neural_ndcg@10"] > 0.7
    assert forwards(replayed) > forwards(bare) + 0.1
    assert apart(parent, distilled) < 0.5 * apart(parent, bare)


def test_what_is_new_is_what_came_later():
    events, until = two_periods()
    line = timeline(events, shelf(RING))
    assert first_new(line, until) == 360
    assert first_new(line, until - 1) == 359
    with pytest.raises(ContinualError, match="bring newer ones"):
        first_new(line, int(line.times[-1]))


def test_an_epoch_has_all_new_windows_and_as_many_old_ones_as_replay_says():
    events, until = two_periods()
    line = timeline(events, shelf(RING))
    data = sequences(line, len(line), Pooled(TEXT), 8)
    rng = np.random.default_rng(0)
    cuts = windows(data, 8, rng)
    first = first_new(line, until)
    new = {c for c in cuts if data.events[c[2] - 1] >= first}
    assert len(new) == len(cuts) - len(new) == 40
    for replay, old in ((0.0, 0), (0.5, 20), (3.0, 40)):
        some = chosen(data, cuts, first, replay, rng)
        assert new <= set(some) and len(some) == len(set(some)) == 40 + old
    one, two = (set(chosen(data, cuts, first, 0.5, rng)) for _ in range(2))
    assert one != two  # drawn anew


def test_a_window_that_only_ends_in_the_new_period_is_new():
    events, _ = ring_walks(users=1, steps=6)
    line = timeline(events, shelf(RING))
    data = sequences(line, len(line), Pooled(TEXT), 8)
    assert chosen(data, [(0, 0, 6)], 5, 0.0, np.random.default_rng(0)) == [(0, 0, 6)]
    assert chosen(data, [(0, 0, 5)], 5, 0.0, np.random.default_rng(0)) == []


def test_new_items_are_those_the_model_does_not_know_or_nobody_had_met():
    events, _ = ring_walks(users=1, steps=3)
    line = timeline(events, shelf(RING))
    one, two = line.rows[:2]
    known = np.ones(RING, bool)
    known[one] = False
    assert np.flatnonzero(~unmet(line, 2, known)).tolist() == [two]
    assert np.flatnonzero(unmet(line, 0, known)).tolist() == [one]  # no old events: the model alone can tell


def test_ids_of_new_items_begin_where_items_with_such_texts_are():
    count = 400
    text = text_vectors(count, 8)
    model = Recommender(ModelConfig(dim=16, layers=1, window=8, text_dim=8, items=count))
    model.set_items(Catalog.build({f"{k:03}": Item(f"{k:03}", "x") for k in range(count)}).hashes, text)
    centred = text - model.text_mean.numpy()
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    ids = centred @ np.random.default_rng(1).normal(size=(8, 16)) + 3
    new = np.arange(count) >= 395
    with torch.no_grad():
        model.id.weight.copy_(torch.from_numpy(np.where(new[:, None], 0.0, ids)))
    place_ids(model, torch.from_numpy(text), new)
    found = model.id.weight.detach().numpy()
    np.testing.assert_allclose(found[:395], ids[:395], atol=1e-5)
    assert np.abs(found[395:] - ids[395:]).mean() < 0.3 * np.abs(ids[395:] - ids.mean(0)).mean()


def test_divergence_by_hand():
    then, now = torch.tensor([[0.0, math.log(3)], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    by_hand = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert divergence(then, now).item() == pytest.approx(by_hand / 2)


def test_what_is_new_is_not_held_to_what_the_model_said_before(parent: Recommender):
    """Distillation is over old items: that a new one was unlikely then must not keep it so."""
    events, catalog = ring_walks(users=10)
    line = timeline(events, catalog)
    data = sequences(line, len(line), Pooled(TEXT), 8)
    some = batch(data, windows(data, 8, np.random.default_rng(0)), 8, RING)
    text = torch.from_numpy(TEXT)
    new = np.arange(RING) == 5
    said = answers(parent, some, data, text).detach()
    assert continual.distilled(parent, data, text, new, 1.0)(some, said).item() == pytest.approx(0, abs=1e-6)
    changed = said.clone()
    changed[:, 5] += 3
    assert continual.distilled(parent, data, text, new, 1.0)(some, changed).item() == pytest.approx(0, abs=1e-6)
    changed[:, 4] += 3
    assert continual.distilled(parent, data, text, new, 1.0)(some, changed).item() > 0.01
