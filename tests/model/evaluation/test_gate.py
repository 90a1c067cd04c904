"""A model takes another's place only if it answers as well what neither has learned."""

import pytest
import torch

from model.config import ModelConfig, TrainConfig
from model.evaluation.exams import World
from model.evaluation.gate import GateError, Verdict, judge, recorded
from model.recommender import Recommender
from model.train import train
from tests.model.evaluation.worlds import ring_world

TINY = TrainConfig(
    model=ModelConfig(dim=16, layers=1, window=8), epochs=6, batch=8, learning_rate=1e-2, held_out=0.2, refit=False
)
STEPS, USERS = 10, 60


@pytest.fixture(scope="module")
def world() -> World:
    return ring_world(users=USERS, steps=STEPS)


@pytest.fixture(scope="module")
def good(world: World) -> Recommender:
    """A model of all but the last two steps round the ring."""
    return train(world.events.take(slice(0, (STEPS - 2) * USERS)), world.catalog, world.texts(), TINY)


@pytest.fixture(scope="module")
def spoilt(good: Recommender) -> Recommender:
    """The same, knowing nothing: other weights, and no counts beside them."""
    torch.manual_seed(7)
    other = Recommender(good.config.model_copy(update={"mix": good.mix.model_copy(update={"online": 0.0})}))
    other.record = good.record
    return other.eval()


def until(world: World, model: Recommender, steps: int) -> Recommender:
    """The same, said to have learned so many steps."""
    other = Recommender(model.config)
    other.load_state_dict(model.state_dict())
    other.record = {"until": int(world.events.ts[steps * USERS - 1])}
    return other.eval()


def test_both_are_asked_what_is_newer_than_either_has_learned(world: World, good: Recommender) -> None:
    longer = until(world, good, STEPS - 1)
    assert (
        judge(world, good, longer).questions == judge(world, longer, good).questions == USERS
    )  # the last step of each
    assert judge(world, good, good).questions == 2 * USERS


def test_a_worse_model_is_told_by_how_much_and_a_better_one_passes(
    world: World, good: Recommender, spoilt: Recommender
) -> None:
    down, up = judge(world, spoilt, good), judge(world, good, spoilt)
    assert down.worse(0.05) and not up.worse(0.0)
    assert (down.candidate, down.running) == (up.running, up.candidate)
    assert down.difference is not None and down.difference.high < 0
    assert down.difference.mean == pytest.approx(down.candidate - down.running)


def test_a_model_is_no_worse_than_itself(world: World, good: Recommender) -> None:
    verdict = judge(world, good, good)
    assert verdict.difference is not None
    assert (verdict.difference.mean, verdict.difference.low, verdict.difference.high) == (0, 0, 0)
    assert not verdict.worse(0.0)


def test_where_nothing_is_released_the_fallback_is_what_runs(world: World, good: Recommender) -> None:
    assert judge(world, good, None).running > 0


def test_without_a_question_or_a_record_of_what_was_learned_nothing_is_compared(
    world: World, good: Recommender
) -> None:
    with pytest.raises(GateError, match="keep some back: eddyline train --end"):
        judge(world, until(world, good, STEPS), good)
    with pytest.raises(GateError, match="does not say which events it has learned"):
        judge(world, Recommender(good.config).eval(), good)


def test_the_margin_is_a_share_of_what_the_running_one_reaches() -> None:
    assert not Verdict(0.19, 0.2, 100).worse(0.05) and Verdict(0.1899, 0.2, 100).worse(0.05)
    assert Verdict(0.1999, 0.2, 100).worse(0.0) and not Verdict(0.2, 0.2, 100).worse(0.0)


def test_what_trainings_noted_is_compared_where_the_questions_were_the_same() -> None:
    def noted(ndcg: float, data: str = "d", held_out: int = 10, events: int = 5) -> tuple[str, dict]:
        return data, {"events": 100, "held_out": held_out, "validation": {"ndcg@10": ndcg, "events": events}}

    verdict = recorded(noted(0.1), noted(0.2))
    assert verdict == Verdict(0.1, 0.2, 5) and verdict.worse(0.05)
    for other in (noted(0.2, data="e"), noted(0.2, held_out=11), noted(0.2, events=6), ("", noted(0.2)[1]), ("d", {})):
        assert recorded(noted(0.1), other) is None and recorded(other, noted(0.1)) is None
    assert recorded(("", {}), ("", {})) is None
