"""The sampled loss against the full one, the heads and the contrastive term by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.config import ModelConfig
from model.heads import Rating, accuracy_f1
from model.loss import aligned, sampled
from model.recommender import Recommender
from model.sequences import Sampler, batch, shuffled
from tests.model.test_train import data_of
from tests.model.worlds import shelf, text_vectors


def test_a_sample_of_everything_is_the_full_softmax():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 9), torch.tensor([0, 3, 8, 1])
    met = torch.zeros(4, 9, dtype=torch.bool)
    met[:, 5] = True
    full = F.cross_entropy(logits.masked_fill(met, -1e9), target)
    torch.testing.assert_close(sampled(logits, target, torch.zeros(9), met), full)


def test_what_is_drawn_stands_for_what_is_not():
    """Over many draws the sum over candidates is that over all items; without the correction it falls short."""
    data, _ = data_of([0, 1, 2, 1, 0, 3])
    items, target = 30, np.array([3])
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(1, items)).astype(np.float32))
    draw = Sampler(data, items, 10, np.random.default_rng(1))
    sums, short = [], []
    for _ in range(3000):
        found = draw(target)
        at = int(np.searchsorted(found.rows, 3))
        some = logits[:, found.rows]
        none = torch.zeros_like(some, dtype=torch.bool)
        own = logits[0, 3]
        sums.append((sampled(some, torch.tensor([at]), torch.from_numpy(found.log_chance), none) + own).exp())
        short.append(some.exp().sum())
    whole = logits.exp().sum().item()
    # targets are sure to be among the candidates of this batch, others by the draw: the popular 1, 2 are as likely
    assert float(np.mean(sums)) == pytest.approx(whole, rel=0.1)
    assert float(np.mean(short)) < 0.6 * whole


def test_candidates_are_the_targets_and_what_is_drawn_evenly():
    data, _ = data_of([0, 1, 2, 3])
    draw = Sampler(data, 1000, 50, np.random.default_rng(0))
    found = draw(np.array([7, 7, 900]))
    assert {7, 900} <= set(found.rows.tolist()) and 45 <= len(found.rows) <= 52
    assert (np.diff(found.rows) > 0).all() and (found.log_chance <= 0).all()
    popular, rare = draw(np.array([1, 900])), np.log(-np.expm1(50 * np.log1p(-1 / 1000)))
    assert popular.log_chance[np.searchsorted(popular.rows, 900)] == pytest.approx(rare, abs=1e-4)
    assert popular.log_chance[np.searchsorted(popular.rows, 1)] > rare + 1


def test_a_sampled_batch_hides_what_was_met_among_its_candidates():
    data, _ = data_of([5, 6, 7, 8, 9])
    whole = batch(data, [(0, 2, 5)], 4, 12)
    some = batch(data, [(0, 2, 5)], 4, 12, Sampler(data, 12, 6, np.random.default_rng(0)))
    assert some.candidates is not None
    np.testing.assert_array_equal(some.met, whole.met[:, some.candidates.rows])


def test_only_the_order_within_a_second_is_shuffled():
    data, _ = data_of(list(range(20)))
    runs = type(data)(**{**vars(data), "times": data.times // 4000 * 4000})
    seen = set()
    for seed in range(30):
        made = shuffled(runs, np.random.default_rng(seed))
        np.testing.assert_array_equal(made.times, runs.times)
        assert sorted(made.rows.tolist()) == list(range(20))
        seen.add(tuple(made.rows[4:8]))
        assert set(made.rows[:16].tolist()) == set(range(16)), "a segment keeps its items"
    assert len(seen) > 5
    np.testing.assert_array_equal(shuffled(data, np.random.default_rng(0)).rows, data.rows)


def test_texts_find_their_own_ids():
    torch.manual_seed(0)
    model = Recommender(ModelConfig(dim=8, layers=1, text_dim=8, items=6))
    text = torch.from_numpy(text_vectors(6))
    model.set_items(shelf(6).hashes, text.numpy())
    with torch.no_grad():
        model.id.weight.copy_(model.embed_text(text))
        near = aligned(model, text, torch.arange(6))
        model.id.weight.copy_(model.embed_text(text).flip(0))
        far = aligned(model, text, torch.arange(6))
    assert near < 0.5 < far


def test_accuracy_and_f1_by_hand():
    said, true = np.array([1, 1, 2, 2, 3]), np.array([1, 2, 2, 2, 1])
    # F1: class 1 has 2 x 1 / (2 + 2), class 2 has 2 x 2 / (2 + 3), class 3 was said and never true
    assert accuracy_f1(said, true) == pytest.approx((3 / 5, (1 / 2 + 4 / 5 + 0) / 3))


def test_a_rating_begins_at_the_mean():
    head = Rating(4)
    head.set_values(np.array([1.0, 3.0], np.float32))
    torch.nn.init.zeros_(head.item.weight), torch.nn.init.zeros_(head.item.bias)
    torch.nn.init.zeros_(head.window.weight), torch.nn.init.zeros_(head.window.bias)
    torch.nn.init.zeros_(head.both.weight)
    assert head(torch.randn(2, 4), torch.randn(2, 4)).tolist() == [2.0, 2.0]
