"""Training on a world with an obvious answer, and the data it is given."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import resume
from model.catalog import Catalog, Item
from model.config import ModelConfig, TrainConfig
from model.dataset import Events
from model.engine import Engine
from model.history import item_hash, item_hashes
from model.longterm import Pooled
from model.loss import answers
from model.recommender import Recommender
from model.replay import timeline
from model.sequences import batch, sequences, windows
from model.train import TrainError, rate, train
from tests.model.worlds import RING, met, ring_walks, shelf, text_vectors

TEXT = text_vectors(RING)
TINY = TrainConfig(
    model=ModelConfig(short_term="gpt", dim=16, layers=1, heads=2, window=8),
    epochs=12,
    batch=8,
    learning_rate=1e-2,
    held_out=0.2,
)


@pytest.fixture(scope="module")
def trained():
    events, catalog = ring_walks()
    seen = []
    return train(events, catalog, TEXT, TINY, seen.append), seen


def predicted(model: Recommender, items: list[int]) -> int:
    engine = Engine(shelf(RING), TEXT, model)
    h = met(items)
    scores = engine.encode(h, engine.profiles(h)).vectors.numpy() @ engine.item_vectors.T
    return int(np.where(engine.allowed(h), scores, -np.inf).argmax())


def test_the_next_on_the_ring_is_what_is_predicted(trained):
    model, _ = trained
    right = [predicted(model, [k % RING, (k + 1) % RING, (k + 2) % RING]) == (k + 3) % RING for k in range(RING)]
    assert np.mean(right) > 0.9


def test_progress_tells_every_epoch_and_the_metrics_what_was_reached(trained):
    model, seen = trained
    fit = [s for s in seen if s["phase"] == "fit"]
    refit = [s for s in seen if s["phase"] == "refit"]
    assert [s["epoch"] for s in fit] == list(range(1, len(fit) + 1))
    assert len(refit) == model.metrics["epochs"] <= len(fit)
    assert fit[-1]["loss"] < fit[0]["loss"]
    assert model.metrics["validation"]["hr@10"] > 0.9
    assert model.metrics["events"] == 540


def test_one_seed_fixes_a_run():
    events, catalog = ring_walks(users=20)
    short = TINY.model_copy(update={"epochs": 2})
    one, two = (train(events, catalog, TEXT, short).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_item_unknown_in_training_has_the_vector_of_its_text(trained):
    model, _ = trained
    catalog = Catalog.build({i: Item(i, i) for i in ("i00", "new")})
    text = np.stack([TEXT[0], TEXT[0]])
    with torch.inference_mode():
        known, new = model.item_vectors(catalog.hashes, text)
        expected = model.embed(torch.from_numpy(text[:1]), torch.tensor([-1]))[0]
    torch.testing.assert_close(new, expected)
    assert not torch.equal(known, new)


def test_a_user_without_history_has_a_vector_of_nothing(trained):
    model, _ = trained
    engine = Engine(shelf(RING), TEXT, model)
    h = met([], [3])
    fused = engine.encode(h, engine.profiles(h))
    assert fused.vectors[0].abs().sum() == 0
    assert engine.encode(met([]), [np.zeros((0, 8), np.float32)]).vectors.abs().sum() == 0


def test_padding_does_not_change_a_users_vector(trained):
    model, _ = trained
    engine = Engine(shelf(RING), TEXT, model)
    alone, together = met([1, 2]), met([1, 2], list(range(8)))
    one = engine.encode(alone, engine.profiles(alone)).vectors[0]
    two = engine.encode(together, engine.profiles(together)).vectors[0]
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_profiles_that_are_documents_train_too_and_need_an_encoder():
    events, catalog = ring_walks(users=20, steps=20, ring=30)
    config = TINY.model_copy(update={"epochs": 1, "model": TINY.model.model_copy(update={"long_term": "document"})})
    read = []

    def encode(texts):
        read.extend(texts)
        return text_vectors(len(texts))

    text = text_vectors(30)
    model = train(events, catalog, text, config, encode=encode)
    assert read[0].startswith("today: click Item")
    with pytest.raises(ValueError, match="text encoder"):
        Engine(catalog, text, model)


def test_a_fixed_alpha_can_take_the_place_of_attention():
    events, catalog = ring_walks(users=20, steps=20, ring=30)
    fixed = TINY.model.model_copy(update={"fusion": "alpha", "alpha": 0.6})
    text = text_vectors(30)
    model = train(events, catalog, text, TINY.model_copy(update={"epochs": 1, "model": fixed}))
    engine, h = Engine(catalog, text, model), met(list(range(10)))
    assert model.name == "gpt-alpha@1"
    assert engine.encode(h, engine.profiles(h)).short.item() == pytest.approx(0.6)


def test_events_out_of_order_are_refused():
    events, catalog = ring_walks(users=4)
    with pytest.raises(TrainError, match="time order"):
        train(events.take(slice(None, None, -1)), catalog, TEXT, TINY)


def test_events_that_leave_nothing_to_hold_out_are_refused():
    events, _ = ring_walks(users=4)
    with pytest.raises(TrainError, match="bring more"):
        train(events, Catalog.build({"x": Item("x", "x")}), TEXT[:1], TINY)


def test_a_training_can_begin_from_a_model_and_a_larger_catalogue(trained):
    model, _ = trained
    events, _ = ring_walks(users=30, seed=1)
    wider = Catalog.build({f"i{k:02}": Item(f"i{k:02}", f"Item {k}") for k in range(RING)} | {"a": Item("a", "new")})
    text = np.concatenate([text_vectors(1, seed=9), TEXT])
    little = TINY.model_copy(update={"epochs": 1, "learning_rate": 1e-5, "refit": False})
    cold = train(events, wider, text, little)
    warm = train(events, wider, text, little, start=model)
    assert warm.metrics["validation"]["neural_hr@10"] >= cold.metrics["validation"]["neural_hr@10"]
    assert warm.record["curve"][0]["ndcg"] > cold.record["curve"][0]["ndcg"] + 0.2
    torch.testing.assert_close(warm.id.weight[1:], model.id.weight, atol=1e-3, rtol=0)


def test_a_training_does_not_begin_from_a_model_of_other_parts(trained):
    model, _ = trained
    events, catalog = ring_walks(users=20)
    other = TINY.model_copy(update={"model": TINY.model.model_copy(update={"dim": 32})})
    with pytest.raises(ValueError, match="other parts"):
        train(events, catalog, TEXT, other, start=model)


def test_the_learning_rate_warms_up_and_falls():
    assert rate(0, 1000) == pytest.approx(0.01)
    assert rate(99, 1000) > 0.95
    assert rate(1000, 1000) == pytest.approx(0.05)


def data_of(items: list[int], catalog=None, weights=None):
    """Sequences of one user who met these items."""
    events, _ = ring_walks(users=1, steps=len(items))
    names = np.array([f"i{i:02}" for i in items], object)
    events = type(events)(events.user, names, events.action, events.ts, events.value)
    catalog = catalog or shelf(40)
    line = timeline(events, catalog, weights)
    return sequences(line, len(line), Pooled(text_vectors(len(catalog))), 8), line


def test_an_item_met_before_is_context_and_never_a_target():
    data, _ = data_of([1, 2, 1, 3])
    assert data.rows.tolist() == [1, 2, 1, 3]
    assert data.target.tolist() == [False, True, False, True]


def test_an_action_that_is_no_sign_of_interest_is_never_a_target():
    data, _ = data_of([1, 2, 3], weights={"click": 0.0})
    assert not data.target.any()


def test_items_outside_the_catalogue_are_left_out():
    data, _ = data_of([1, 39, 2], catalog=shelf(10))
    assert data.rows.tolist() == [1, 2]


def test_a_target_sees_the_profile_of_the_last_multiple_of_sixteen():
    data, line = data_of(list(range(35)))
    assert data.profile.tolist() == [0] * 16 + [1] * 16 + [2] * 3
    assert [len(p) for p in data.profiles] == [0, 1, 2]
    text = text_vectors(40)
    np.testing.assert_allclose(data.profiles[2][-1], text[16:32].mean(0), atol=1e-4)
    assert line.items.tolist() == item_hashes([f"i{k:02}" for k in range(35)]).tolist()


def test_windows_cover_a_long_history_without_overlap_of_targets():
    data, _ = data_of(list(range(35)))
    for seed in range(20):
        cuts = windows(data, 8, np.random.default_rng(seed))
        targets = [t for _, first, end in cuts for t in range(first + 1, end)]
        assert len(targets) == len(set(targets))
        assert all(end - 1 - first <= 8 for _, first, end in cuts)
        assert set(range(1, 28)) <= set(targets)


def test_a_batch_hides_what_was_met_before_each_target_and_nothing_else():
    data, _ = data_of([5, 6, 7, 8, 9])
    made = batch(data, [(0, 2, 5)], length=4, items=12)
    assert made.rows.tolist() == [[-1, -1, 7, 8]]
    assert made.asked.tolist() == [[False, False, True, True]]
    assert made.target.tolist() == [8, 9]
    assert [np.flatnonzero(m).tolist() for m in made.met] == [[5, 6, 7], [5, 6, 7, 8]]


def baskets_of(*sizes: int):
    """Sequences of one user who took baskets of so many items, all different, a minute apart."""
    times = np.repeat(np.arange(len(sizes)), sizes) * 60_000
    n = len(times)
    names = np.array([f"i{k:02}" for k in range(n)], object)
    who, none = np.array(["u"] * n, object), np.full(n, np.nan, np.float32)
    events, catalog = Events(who, names, np.full(n, 2, np.uint8), times.astype(np.int64), none), shelf(n)
    line = timeline(events, catalog)
    return sequences(line, n, Pooled(text_vectors(n)), 8, again=True, baskets=True)


def test_an_item_of_a_basket_is_answered_from_what_came_before_the_basket():
    data = baskets_of(1, 2, 2)
    made = batch(data, [(0, 0, 5)], length=5, items=5)
    assert made.rows.tolist() == [[-1, *data.rows[:4].tolist()]]
    assert made.target.tolist() == data.rows[1:].tolist()
    # the four are asked at places 1 to 4, and answered where the first item stands (1) and the third (3)
    assert made.back is not None
    assert (np.flatnonzero(made.asked[0]) - made.back).tolist() == [1, 1, 3, 3]


def test_a_window_that_begins_within_a_basket_does_not_ask_for_the_rest_of_it():
    data = baskets_of(1, 3, 1)
    made = batch(data, [(0, 1, 5)], length=4, items=5)
    assert made.target.tolist() == data.rows[4:].tolist()  # the other two of the basket have nothing before them here


def test_a_basket_is_told_by_nothing_of_itself():
    """The vectors that answer two items of a basket are the same; without baskets, the second knows the first. A
    profile is that before the basket, wherever a segment of it ends.
    """
    data = baskets_of(15, 3)
    assert data.profile.tolist() == [0] * 16 + [1] * 2
    text, config = text_vectors(18), ModelConfig(dim=16, layers=1, window=20, text_dim=8, items=18)
    torch.manual_seed(0)
    model = Recommender(config).eval()
    for baskets, same in ((True, True), (False, False)):
        made = batch(replace(data, baskets=baskets), [(0, 0, 18)], length=20, items=18)
        with torch.inference_mode():
            said = answers(model, made, data, torch.from_numpy(text)).numpy()
        assert bool(np.allclose(said[-1], said[-3], atol=1e-6)) is same


def test_an_item_hash_above_the_range_of_signed_numbers_is_found_again():
    big = next(f"x{k}" for k in range(100) if item_hash(f"x{k}") >= 2**63)
    model = Recommender(ModelConfig(dim=16, layers=1, window=8, text_dim=8, items=1))
    catalog = Catalog.build({big: Item(big, big)})
    model.set_items(catalog.hashes, TEXT[:1])
    with torch.inference_mode():
        alone = model.embed(torch.from_numpy(TEXT[:1]), torch.tensor([0]))
        torch.testing.assert_close(model.item_vectors(catalog.hashes, TEXT[:1]), alone)


def test_steps_in_half_precision_learn_the_same_and_leave_whole_weights():
    events, catalog = ring_walks(users=30)
    half = TINY.model_copy(update={"precision": "bf16", "full_softmax": 4, "negatives": 6})
    model = train(events, catalog, TEXT, half)
    assert model.record["environment"]["bf16"] is True
    assert {t.dtype for n, t in model.state_dict().items() if n != "hashes"} == {torch.float32}
    assert model.metrics["validation"]["neural_hr@10"] > 0.9
    whole = train(events, catalog, TEXT, half.model_copy(update={"precision": "auto"}))
    assert whole.record["environment"]["bf16"] is False  # auto, on a CPU
    assert whole.record["curve"][0]["loss"] == pytest.approx(model.record["curve"][0]["loss"], rel=0.02)
    assert whole.record["curve"][0]["loss"] != model.record["curve"][0]["loss"]


def test_the_record_of_a_training_says_what_its_figures_depend_on(trained):
    model, _ = trained
    assert model.record["config"] == TINY.model_dump(mode="json")
    assert {"eddyline", "torch", "numpy", "python", "platform", "cores", "threads"} <= model.record[
        "environment"
    ].keys()
    assert model.record["texts"] == resume.key(TEXT)
    assert [at["phase"] for at in model.record["curve"]].count("refit") == model.metrics["epochs"]
