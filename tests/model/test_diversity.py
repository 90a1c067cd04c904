"""Re-ranking: by hand, and against the formulas of the papers worked out in the plainest way."""

import numpy as np
import pytest

from model.diversity import DiversityConfig, reranked

RNG = np.random.default_rng(3)


def rows(users: int, many: int) -> np.ndarray:
    return np.tile(np.arange(many, dtype=np.int32), (users, 1))


def order(utilities: np.ndarray) -> list[list[int]]:
    return np.argsort(-utilities, axis=1, kind="stable").tolist()


def test_mmr_by_hand():
    """0 and 1 are the same, 2 is half like them (cosine 0.5), 3 is unlike all."""
    items = np.array([[2, 0], [3, 0], [1, np.sqrt(3)], [0, 0]], np.float32)
    scores = np.array([[1.0, 0.9, 0.8, 0.2]], np.float32)
    found = reranked(rows(1, 4), scores, items, 4, DiversityConfig(method="mmr", strength=1.0))
    # 0 at 1.0; then 1 has 0.9 - 1, 2 has 0.8 - 0.5, 3 has 0.2; then 3; then 1
    np.testing.assert_allclose(found, [[1.0, -0.1, 0.3, 0.2]], atol=1e-6)


def test_dpp_by_hand():
    """Of 1, which is 0 again, nothing is left; of 2, whose cosine to 0 is 0.5, three quarters of its square."""
    items = np.array([[2, 0], [3, 0], [1, np.sqrt(3)]], np.float32)
    scores = np.array([[1.0, 0.9, 0.8]], np.float32)
    found = reranked(rows(1, 3), scores, items, 3, DiversityConfig(method="dpp", strength=1.0))
    np.testing.assert_allclose(found[0, [0, 2]], [1.0, 0.8 + np.log(0.75)], atol=1e-5)
    assert found[0, 1] < -10


def plainly(scores: np.ndarray, items: np.ndarray, places: int, method: str, strength: float) -> list[int]:
    """One user's first places by the definitions: a maximum over pairs, a determinant."""
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    like = unit @ unit.T
    taken: list[int] = []
    for _ in range(places):
        best, most = -1, -np.inf
        for i in range(len(scores)):
            if i in taken:
                continue
            if method == "mmr":
                value = scores[i] - strength * max([0.0, *(like[i, j] for j in taken)])
            else:
                now, then = np.ix_(taken, taken), np.ix_([*taken, i], [*taken, i])
                value = scores[i] + strength * (np.linalg.slogdet(like[then])[1] - np.linalg.slogdet(like[now])[1])
            if value > most:
                best, most = i, value
        taken.append(best)
    return taken


@pytest.mark.parametrize("method", ["mmr", "dpp"])
@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_lists_are_those_of_the_definition(method, strength):
    items = RNG.normal(size=(30, 12)) + 0.7
    scores = RNG.normal(size=(5, 30))
    config = DiversityConfig(method=method, strength=strength, pool=30)
    found = reranked(rows(5, 30), scores, items.astype(np.float32), 8, config)
    for user in range(5):
        assert order(found)[user][:8] == plainly(scores[user], items, 8, method, strength)


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_who_is_not_there_stays_away_and_who_is_beyond_the_pool_follows_it(method):
    items = RNG.normal(size=(12, 4)).astype(np.float32)
    scores = RNG.normal(size=(3, 12))
    scores[1, 3:] = -np.inf
    scores[2] = -np.inf
    found = reranked(rows(3, 12), scores, items, 10, DiversityConfig(method=method, strength=3.0, pool=5))
    assert (np.isfinite(found) == np.isfinite(scores)).all()
    plain = order(scores)[0]
    assert set(order(found)[0][:5]) == set(plain[:5])
    assert order(found)[0][5:] == plain[5:]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_no_strength_changes_nothing_and_none_is_the_default(method):
    items, scores = RNG.normal(size=(12, 4)).astype(np.float32), RNG.normal(size=(3, 12)).astype(np.float32)
    same = reranked(rows(3, 12), scores, items, 10, DiversityConfig(method=method, strength=0.0))
    assert order(same) == order(scores)
    assert (reranked(rows(3, 12), scores, items, 10, DiversityConfig()) == scores).all()


def test_a_user_alone_has_the_list_of_the_batch_and_the_order_of_candidates_does_not_matter():
    items, scores = RNG.normal(size=(40, 6)).astype(np.float32), RNG.normal(size=(4, 40))
    config = DiversityConfig(method="mmr", strength=1.0, pool=15)
    whole = reranked(rows(4, 40), scores, items, 10, config)
    mixed = RNG.permutation(40)
    for user in range(4):
        alone = reranked(mixed[None].astype(np.int32), scores[[user]][:, mixed], items, 10, config)
        np.testing.assert_allclose(alone[0], whole[user, mixed], atol=1e-6)
