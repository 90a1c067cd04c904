"""Models that are trained for an exam: once, with the settings at hand, and in parts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import checkpoint
from model.config import ModelConfig, TrainConfig
from model.evaluation import basket, temporal
from model.evaluation.exams import World
from model.evaluation.methods import trained
from model.evaluation.methods.trained import NO_HABITS, NO_USERS, PARTS, Trained
from model.evaluation.protocols import evaluate, trained_for
from tests.model.evaluation.worlds import happened, ring_world, world_of
from tests.model.worlds import ring_walks

TINY = TrainConfig(
    model=ModelConfig(dim=16, layers=1, window=8), epochs=6, batch=8, learning_rate=1e-2, held_out=0.2, refit=False
)
NAME = "cnn/pooled/attention"


@pytest.fixture(scope="module")
def world() -> World:
    return replace(ring_world(users=60, steps=10), train=TINY)


def test_every_part_answers_and_they_are_trained_once(world: World, monkeypatch: pytest.MonkeyPatch):
    runs: list[TrainConfig] = []
    train = trained.train

    def counted(*given, **named):
        runs.append(given[3])
        return train(*given, **named)

    monkeypatch.setattr(trained, "train", counted)
    whole = Trained(world, NAME, 3)
    tables = evaluate(world, "temporal", [whole, *whole.parts()], k=1, tune=False)
    assert list(tables) == ["temporal", "strict"]
    (config,) = runs
    assert (config.seed, config.epochs, config.model.short_term, config.model.dim) == (3, 6, "cnn", 16)
    table = tables["temporal"][0]
    assert list(table.answers) == [NAME, *(f"{NAME}, {part}" for part in PARTS if part not in (NO_USERS, NO_HABITS))]
    hit = {name: float(table.metrics(name)["hr@1"].mean()) for name in table.answers}
    assert hit[NAME] > 0.9  # the window says what is next on the ring
    assert hit[f"{NAME}, window only"] > 0.9
    assert whole.settings()["seed"] == 3 and "validation" in whole.settings()


def test_parts_are_what_they_say():
    # long walks, so that users have profiles, on a ring so wide that something is left to show
    events, _ = ring_walks(users=12, steps=24, ring=40)
    wide = replace(world_of(events, 40), train=TINY.model_copy(update={"epochs": 2}))
    whole = Trained(wide, NAME, 0)
    exam = temporal.exams(wide)[1][0]
    paper = next(iter(exam.papers()))
    said = {}
    for method in (whole, *whole.parts()):
        method.learn(exam.line, exam.end)
        said[method.name.removeprefix(f"{NAME}, ")] = method.scores(paper.asked)
    weight, counts = whole.model(exam.line, exam.end).mix.neural, said["counts only"]
    for with_counts, vectors in ((NAME, "no counts"), ("no profile", "window only"), ("no window", "profile only")):
        np.testing.assert_allclose(said[with_counts], weight * said[vectors] + counts, rtol=1e-4, atol=1e-4)
    # V = w h + (1 - w) h', one w a user
    h, far, fused = said["window only"], said["profile only"], said["no counts"]
    w = ((fused - far) * (h - far)).sum(1) / ((h - far) ** 2).sum(1)
    assert ((w > 0) & (w < 1)).all()
    np.testing.assert_allclose(w[:, None] * h + (1 - w)[:, None] * far, fused, rtol=1e-3, atol=1e-4)


def given_to_choose_by(world: World, protocol: str, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How many questions each training of an evaluation was given; None where it was to find its own."""
    given: list[int | None] = []
    train = trained.train

    def noted(*args, **named):
        given.append(None if named["valid"] is None else len(named["valid"].targets))
        return train(*args, **named)

    monkeypatch.setattr(trained, "train", noted)
    (method,) = evaluate(world, protocol, [Trained(world, NAME, 0)], k=1)[protocol][1]
    held_out = {"loo": 0, "temporal": 108, "basket": 30}
    assert isinstance(method, Trained) and method.settings()["held_out"] == held_out[protocol]
    return given


def test_epochs_are_chosen_on_the_exam_where_its_questions_are_not_learned(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    assert given_to_choose_by(world, "loo", monkeypatch) == [60]  # the last but one of each of 60 users
    assert given_to_choose_by(world, "temporal", monkeypatch) == [None]  # these are learned before the test
    assert given_to_choose_by(world, "basket", monkeypatch) == [30]  # no other event is asked as they are


def test_models_are_trained_for_what_a_protocol_asks():
    assert trained_for("temporal", TINY) == trained_for("loo", TINY) == TINY
    assert trained_for("basket", TINY) == TINY.model_copy(update={"seen": "allow", "baskets": True})
    assert trained_for("session-stream", TINY) == TINY.model_copy(update={"seen": "allow"})


def test_a_model_learns_what_is_in_the_next_basket():
    """Everybody takes two things, and a minute later the next two on the ring: of 12, two are next, and any of what
    was met may come again.
    """
    events, _ = ring_walks(users=60, steps=20)
    when = np.arange(len(events)) // 60
    events = replace(events, ts=(when // 2 * 60_000 + np.arange(len(events)) % 60).astype(np.int64))
    order = np.argsort(events.ts, kind="stable")
    world = replace(world_of(events.take(order), 12), train=trained_for("basket", TINY))
    table, _ = evaluate(world, "basket", [Trained(world, NAME, 0)], k=2)["basket"]
    assert float(table.metrics(NAME)["hr@2"].mean()) > 0.9


def test_habits_are_learned_for_baskets_and_are_a_part_of_the_model():
    """Everybody buys one of six things every day, always the same, and one of six others, any."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{u:02}", item, day * 86_400_000 + u)
        for day in range(20)
        for u in range(30)
        for item in (u % 6, 6 + int(random.integers(6)))
    ]
    config = TINY.model_copy(update={"epochs": 1, "learning_rate": 1e-6, "habits": True})
    world = replace(world_of(happened(rows), 12), train=trained_for("basket", config))
    whole = Trained(world, NAME, 0)
    (without,) = [part for part in whole.parts() if part.name.endswith(NO_HABITS)]
    table, _ = evaluate(world, "basket", [whole, without], k=1, tune=False)["basket"]
    hit, blind = (float(table.metrics(name)["hr@1"].mean()) for name in table.answers)
    assert hit == 0.5 >= blind  # of the two lines of each basket, the one that comes again
    paper = next(iter(basket.exams(world)[1][0].papers()))
    with_habits, none = (method.scores(paper.asked) for method in (whole, without))
    assert whole.engine.habits is not None and not np.allclose(with_habits, none)


def test_a_model_goes_through_session_stream_and_learns_to_come_back():
    """Sessions in two weeks that take two things in turn: what comes next is what was met before the last."""
    week, rows = 7 * 86_400_000, []
    for s in range(120):
        for step in range(6):
            rows.append((f"s{s:03}", s % 6 + 6 * (step % 2), s // 60 * week + 1000 * (s * 10 + step)))
    events = happened(sorted(rows, key=lambda row: row[2]))
    world = replace(world_of(events, 12), train=trained_for("session-stream", TINY))
    table, _ = evaluate(world, "session-stream", [Trained(world, NAME, 0)], k=1, rows=["static"])["static"]
    assert float(table.metrics(NAME)["hr@1"].mean()) > 0.9


def test_models_are_kept_and_an_interrupted_training_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = replace(world, keep=tmp_path / "kept")
    train = trained.train

    class InterruptedError(Exception):
        pass

    def cut(*args, **named):
        def stop(seen: dict) -> None:
            if seen["epoch"] == 2:
                raise InterruptedError

        return train(*args, progress=stop, **named)

    monkeypatch.setattr(trained, "train", cut)
    with pytest.raises(InterruptedError):
        evaluate(kept, "loo", [Trained(kept, NAME, 0)], k=1)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["cnn-pooled-attention-0.resume"]

    epochs: list[int] = []
    monkeypatch.setattr(trained, "train", lambda *a, **n: train(*a, progress=lambda e: epochs.append(e["epoch"]), **n))
    again = Trained(kept, NAME, 0)
    evaluate(kept, "loo", [again], k=1)
    assert epochs[0] == 3
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["cnn-pooled-attention-0"]
    model = checkpoint.load(tmp_path / "kept" / "cnn-pooled-attention-0")
    assert len(model.record["data"]) == 64
    assert model.metrics == {k: v for k, v in again.settings().items() if k not in ("seed", "cpu_seconds")}
