"""How much of a list a group may take: by hand, in the engine's lists, and in what an evaluation ranks."""

import numpy as np
import pytest
from pydantic import ValidationError

from model.config import RankConfig
from model.engine import Engine
from model.evaluation.exams import Asked
from model.evaluation.methods.served import Served
from model.evaluation.past import unseen
from model.exposure import Bounds, ExposureConfig
from model.online import OnlineParams, OnlineScores
from model.replay import timeline
from tests.model.evaluation.worlds import ring_world, world_of
from tests.model.test_engine import search_of
from tests.model.worlds import met, ring_walks, shelf, text_vectors

N = 20
CATALOG = shelf(N)  # even rows are films, odd ones books


def popular(*rows: int) -> OnlineScores:
    """Scores by which these rows are the most popular, in this order."""
    often = np.full(N, 1.0, np.float32)
    often[list(rows)] = [10.0 - i for i in range(len(rows))]
    empty = OnlineScores.empty(CATALOG)
    return OnlineScores(empty.steps, often / often.sum(), OnlineParams())


def listed(config: ExposureConfig, scores: list[float], online: OnlineScores, places: int) -> list[int]:
    """The rows of a list under these bounds, best first."""
    rows, at = np.arange(len(scores), dtype=np.int32)[None], np.array([scores])
    kept = Bounds(config, CATALOG).kept(rows, at, online, places)[0]
    return [int(r) for r in np.argsort(-at[0], kind="stable") if kept[r]][:places]


SCORES = [float(N - k) for k in range(N)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ExposureConfig(), [0, 1, 2, 3]),
        # a tenth of 20 items is two: 0 and 1; half of four places is two, a quarter one, and less than that none
        (ExposureConfig(popular=0.5), [0, 1, 2, 3]),
        (ExposureConfig(popular=0.25), [0, 2, 3, 4]),
        (ExposureConfig(popular=0.2), [2, 3, 4, 5]),
        (ExposureConfig(popular=0.0), [2, 3, 4, 5]),
        (ExposureConfig(categories={"film": 0.25}), [0, 1, 3, 5]),
        # 0 is popular and takes the one place of both; 1 may not come, so the film's bound is all there is after it
        (ExposureConfig(popular=0.25, categories={"film": 0.5}), [0, 2, 3, 5]),
        (ExposureConfig(categories={"film": 0.0, "book": 0.5}), [1, 3]),
        (ExposureConfig(categories={"nobody has it": 0.0}), [0, 1, 2, 3]),
    ],
)
def test_a_group_takes_its_places_and_no_more(config: ExposureConfig, expected: list[int]):
    assert listed(config, SCORES, popular(0, 1), 4) == expected


def test_three_tenths_of_ten_places_are_three():
    """0.3 x 10 is a little less than 3 for a computer."""
    assert listed(ExposureConfig(categories={"film": 0.3}), SCORES, popular(), 10)[:6] == [0, 1, 2, 3, 4, 5]


def test_what_may_not_be_shown_takes_no_place():
    scores = [-np.inf, *SCORES[1:]]
    assert listed(ExposureConfig(popular=0.25), scores, popular(0, 1), 4) == [1, 2, 3, 4]


def test_shares_are_between_none_and_all():
    with pytest.raises(ValidationError, match=r"film is 1.5: a share of a list is between 0 and 1"):
        ExposureConfig(categories={"film": 1.5})
    assert RankConfig().exposure == ExposureConfig()


def lists(config: ExposureConfig | None) -> list[list[int]]:
    engine = Engine(CATALOG, text_vectors(N), exposure=config)
    h = met([1, 2], [], [4])
    fused = engine.encode(h, engine.profiles(h))
    online = popular(0, 6)
    found = engine.candidates(h, fused, search_of(engine), online, N)
    ranked = engine.rank(h, fused, found, online, 10)
    assert all(len(r.items) == len(r.reasons) == len(r.explained) == len(r.scores) for r in ranked)
    return [r.items.tolist() for r in ranked]


def test_lists_keep_their_order_and_leave_out_what_is_too_much():
    free, bound = lists(None), lists(ExposureConfig(categories={"film": 0.2}))
    for before, after in zip(free, bound, strict=True):
        assert sum(row % 2 == 0 for row in before) > 2
        films = [row for row in after if row % 2 == 0]
        assert films == [row for row in before if row % 2 == 0][:2]
        assert [r for r in after if r in before] == [r for r in before if r in after]
        assert len(after) == 10 or len(after) == 2 + N // 2 - 1  # nine books are left to whom has met one
    assert lists(ExposureConfig()) == free


def test_an_evaluation_ranks_what_a_bound_worker_lists():
    events, catalog = ring_walks()
    world, config = world_of(events, len(catalog)), ExposureConfig(popular=0.1, categories={"film": 0.3})
    engine = Engine(catalog, world.texts(), exposure=config)
    method, line = Served(world, engine, "bound"), timeline(events, catalog)
    method.learn(line, len(line))
    h = met([1, 2, 3], [], [5])
    rows = catalog.index_of(h.items)
    allowed = unseen(rows, h, catalog.seen32, len(catalog))
    nothing = np.zeros(3, np.int64)
    scores = method.scores(Asked(nothing, nothing, h, rows, allowed))
    online = OnlineScores.build(catalog, line.counts(len(line), OnlineParams()), line.as_of(len(line), OnlineParams()))
    fused = engine.encode(h, engine.profiles(h))
    found = engine.candidates(h, fused, search_of(engine), online, len(catalog))
    for b, ranked in enumerate(engine.rank(h, fused, found, online, world.places)):
        best = np.argsort(-scores[b], kind="stable")
        assert ranked.items.tolist() == best[np.isfinite(scores[b, best])][: world.places].tolist()
        assert 0 < len(ranked.items) < world.places  # films may take three places, and books are six
    free = Served(ring_world(), Engine(catalog, world.texts()), "free")
    free.learn(line, len(line))
    assert np.isfinite(free.scores(Asked(nothing, nothing, h, rows, allowed))).all()
