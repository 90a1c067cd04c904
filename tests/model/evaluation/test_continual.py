"""Models that live through periods: what is asked when, what nobody learns, and who is trained on what."""

from dataclasses import replace

import numpy as np
import pytest

from model.config import ModelConfig, TrainConfig
from model.evaluation import continual
from model.evaluation.exams import World
from model.evaluation.methods import trained
from model.evaluation.methods.lived import WAYS, ways
from model.evaluation.methods.trained import Trained
from model.evaluation.protocols import evaluate
from model.replay import timeline
from tests.model.evaluation.worlds import ring_world

TINY = TrainConfig(
    model=ModelConfig(dim=16, layers=1, window=8), epochs=3, batch=8, learning_rate=1e-2, held_out=0.2, refit=False
)


@pytest.fixture(scope="module")
def world() -> World:
    return replace(ring_world(users=60, steps=10), train=TINY)  # 600 events


def test_periods_are_asked_after_what_came_before_them_and_old_events_are_learned_by_nobody(world: World):
    rows = continual.exams(world)
    held = set(range(300, 420, 10))
    validation, new = rows["new"]
    assert [(e.end, e.questions) for e in (validation, *new)] == [(408, 60), (468, 60), (528, 60)]
    whole, line = timeline(world.events, world.catalog), new[0].line
    kept = [n for n in range(600) if n not in held]
    np.testing.assert_array_equal(line.times, whole.times[kept])
    old = rows["old"][1]
    assert [e.end for e in old] == [468, 528] and all(e.line is line and not e.online for e in old)
    for exam in old:
        (paper,) = exam.papers()
        asked = sorted(held)
        np.testing.assert_array_equal(paper.targets, whole.rows[asked])
        # everybody walks once in 60 events: before event n its user had n // 60
        assert paper.asked.histories.lengths.tolist() == [n // 60 for n in asked]
    for exam, (first, last) in zip(new, ((480, 540), (540, 600)), strict=True):
        papers = list(exam.papers())
        np.testing.assert_array_equal(np.concatenate([p.targets for p in papers]), whole.rows[first:last])
        assert papers[0].known == exam.end and papers[0].asked.histories.lengths[0] == first // 60


def test_one_model_lives_on_while_the_other_is_trained_anew(world: World, monkeypatch: pytest.MonkeyPatch):
    runs: list[tuple[int, bool, int | None, float]] = []
    train = trained.train

    def noted(events, *given, start, since, **named):
        runs.append((len(events), start is not None, since, given[2].continual.replay))
        return train(events, *given, start=start, since=since, **named)

    monkeypatch.setattr(trained, "train", noted)
    whole = Trained(world, "cnn/pooled/attention", 0)
    lives = [life for life in ways(whole) if life.name.endswith(("not updated", "replay 1"))]
    tables = evaluate(world, "continual", [whole, *lives], k=1)
    assert list(tables) == ["new", "old"]
    line = continual.exams(world)["new"][1][0].line
    since = [int(line.times[end - 1]) for end in (408, 468)]
    anew = [(n, False, None, TINY.continual.replay) for n in (408, 468, 528)]
    gone_on = [(468, True, since[0], 1.0), (528, True, since[1], 1.0)]
    assert sorted(runs, key=str) == sorted([*anew, *gone_on], key=str)  # each once, whatever rows ask
    table = tables["new"][0]
    assert list(table.answers) == [whole.name, *(life.name for life in lives)]
    assert len(whole.settings()["cpu_seconds"]) == 3 and len(lives[1].settings()["cpu_seconds"]) == 2
    assert lives[0].model(line, 528) is whole.model(line, 408)


def test_every_way_but_one_is_a_setting_of_continual_training():
    whole = TINY.continual
    for name, changes in WAYS.items():
        assert (changes is None) == (name == "not updated")
        assert type(whole).model_validate(whole.model_dump() | dict(changes or {}))
