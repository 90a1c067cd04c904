"""Values told from those before them: biases by hand, and a head that finds what biases cannot say."""

import numpy as np
import pytest

from model.ratings import biases, centred, head, running, tastes, weight_of


def column(*values: float) -> np.ndarray:
    return np.array(values)


def test_biases_by_hand():
    """Users 0 and 1, items 7 and 8; an item's bias is shrunk by 1 value, a user's by 2."""
    users, items, values = column(0, 1, 0, 1), column(7, 7, 8, 8), column(4.0, 2.0, 5.0, 3.0)
    said = running(users, items, values, of_item=1.0, of_user=2.0)
    # 1: the first is itself. 2: mean 4, nothing known of item 7 but that it was at the mean.
    # 3: mean 3; item 8 is new; user 0 was at what was expected (4 of 4).
    # 4: mean 11/3; item 8 was 5 - 3 = 2 above, so 2 / (1 + 1) = 1; user 1 was 2 - 4 = -2, so -2 / (2 + 1).
    assert said.tolist() == pytest.approx([4.0, 4.0, 3.0, 11 / 3 + 1 - 2 / 3])


def test_a_value_says_nothing_of_itself_nor_of_what_came_before():
    rng = np.random.default_rng(0)
    users, items, values = rng.integers(5, size=50), rng.integers(5, size=50), rng.normal(size=50)
    said = running(users, items, values, 3.0, 3.0)
    changed = values.copy()
    changed[30] += 10
    again = running(users, items, changed, 3.0, 3.0)
    np.testing.assert_array_equal(said[:31], again[:31])
    assert (said[31:] != again[31:]).all()


def test_the_strength_of_biases_is_chosen_on_what_is_learned_alone():
    rng = np.random.default_rng(0)
    users, items = rng.integers(20, size=2000), rng.integers(20, size=2000)
    values = users / 10 + items / 10 + rng.normal(size=2000) * 0.1
    said = biases(users, items, values, 1000)
    np.testing.assert_array_equal(said[:1000], biases(users[:1000], items[:1000], values[:1000], 1000))
    np.testing.assert_array_equal(
        said, running(users, items, values, 1.0, 1.0)
    )  # so regular that little shrinking is best
    assert np.abs(said - values)[1000:].mean() < 0.25 * np.abs(values - values.mean())[1000:].mean()


def test_tastes_by_hand():
    """Vectors of length 2, shrunk by 1 value: user 0 liked item 0 by 3 and item 1 by -1."""
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    users, items, left = column(0, 0, 1, 0), column(0, 1, 2, 2), column(3.0, -1.0, 9.0, 0.0)
    said = tastes(users, items, left, vectors, 1.0)
    # nothing is known; item 1 has nothing of item 0; nothing is known of user 1; (0.6 * 3 - 0.8 * 1) / (1 + 2)
    assert said.tolist() == pytest.approx([0.0, 0.0, 0.0, 1 / 3])


def test_a_weight_by_hand():
    assert weight_of(column(1.0, 2.0), column(3.0, 1.0)) == pytest.approx((1 * 3 + 2 * 1) / (1 + 4))
    assert weight_of(column(0.0), column(2.0)) == 0.0


def test_vectors_without_their_mean_at_length_one():
    made = centred(np.array([[4.0, 1.0], [0.0, 1.0], [2.0, 1.0]]))
    np.testing.assert_allclose(made, [[1, 0], [-1, 0], [0, 0]])


def test_a_head_finds_a_taste_that_biases_cannot_say_and_no_more_where_there_is_none():
    rng = np.random.default_rng(0)
    users, items = rng.integers(30, size=3000), rng.integers(40, size=3000)
    vectors, likes = rng.normal(size=(40, 8)), rng.normal(size=(30, 8))
    unit = centred(vectors)
    taste = (likes[users] * unit[items]).sum(1)
    for left, share in ((taste, 0.7), (rng.normal(size=3000), 1.02)):
        added = head(users, items, left, vectors, 2000)
        assert np.abs(left - added)[2000:].mean() < share * np.abs(left)[2000:].mean()


def test_what_a_head_adds_knows_nothing_of_what_is_asked():
    rng = np.random.default_rng(0)
    users, items, left = rng.integers(5, size=300), rng.integers(9, size=300), rng.normal(size=300)
    vectors = rng.normal(size=(9, 4))
    whole, changed = head(users, items, left, vectors, 200), left.copy()
    changed[250] += 10
    again = head(users, items, changed, vectors, 200)
    np.testing.assert_array_equal(whole[:251], again[:251])
    assert not np.array_equal(whole[251:], again[251:])  # but on the way it learns
