"""The known answer itself, by hand arithmetic: without a broker."""

from __future__ import annotations

from collections import Counter

from model.history import item_hash
from tests.chaos.events import MOST, SKEW_MS, Source
from tests.chaos.reference import BUCKET_MS, HISTORY, Reference, Row

NOW = 1_800_000_000_000


def test_a_repeat_counts_nothing_and_a_pair_is_met_before() -> None:
    reference = Reference()
    for offset, (item, ts) in enumerate((("o1", 5), ("o2", 6), ("o2", 6), ("o1", 7))):
        reference.add("click", "click", offset, "u", item, ts)
    a, b = item_hash("o1"), item_hash("o2")
    assert reference.trends == Counter({(a, 0, 0): 2, (b, 0, 0): 1, (a, b, 0): 1, (b, a, 0): 1})
    assert reference.rows["u"].applied == {"click": 3}


def test_pairs_of_mixed_users_are_not_foretold_but_how_often_an_item_was_met_is() -> None:
    reference = Reference()
    reference.add("click", "click", 0, "u", "m1", BUCKET_MS)
    reference.add("view", "view", 0, "u", "m2", BUCKET_MS + 1)
    assert reference.trends == Counter({(item_hash("m1"), 0, 1): 1, (item_hash("m2"), 0, 1): 1})


def test_a_row_keeps_the_newest_and_remembers_the_rest() -> None:
    row = Row()
    for time in [*range(HISTORY, 0, -1), HISTORY + 1, 0]:
        assert row.add(time, 1, 1000 + time) is not None
    assert [time for time, _, _ in row.kept] == list(range(2, HISTORY + 2))
    assert row.beyond == {1000, 1001}


def test_a_repeat_leaves_its_count_unsure_only_in_a_history_that_overflowed() -> None:
    """Whether the first was still held when it was repeated depends on which of two topics was read first."""
    reference = Reference()
    for user, most in (("few", 3), ("many", HISTORY + 1)):
        for offset in range(most):
            reference.add("view", "view", offset, user, f"m{offset % 3}", offset)
        reference.add("view", "view", most, user, "m0", 0)
    reference.add("click", "click", 0, "few", "m1", 1)
    once = Counter({(item_hash("m0"), 0, 0): 1})
    assert reference.unsure == once
    reference.forget({"few"})
    assert reference.unsure == once and reference.rows.keys() == {"few"}


def test_the_same_seed_makes_the_same_records() -> None:
    def some(seed: int) -> list[bytes]:
        source = Source(seed, NOW, users=40)
        return [
            r.value
            for n in range(3)
            for r in (*source.usual(50, NOW + n), *source.flood(20, NOW), *source.ahead(5, NOW))
        ]

    assert some(3) == some(3) != some(4)


def test_steady_users_keep_time_and_nobody_who_repeats_outgrows_a_history() -> None:
    import json

    source = Source(1, NOW, users=16)
    newest: dict[str, int] = {}
    events: dict[str, set[tuple[str, str, int]]] = {}
    for record in source.usual(6000, NOW):
        if not record.good:
            continue
        event = json.loads(record.value)
        assert event["ts"] <= NOW + SKEW_MS
        events.setdefault(record.user, set()).add((record.action, event["item"], event["ts"]))
        if event["item"].startswith("o"):
            assert event["ts"] >= newest.get(record.user, 0)
            newest[record.user] = event["ts"]
    assert newest and max(len(had) for user, had in events.items() if user.startswith("r0")) <= MOST < HISTORY


def test_what_is_ahead_is_no_event() -> None:
    import json

    for record in Source(1, NOW, users=16).ahead(50, NOW):
        assert not record.good and json.loads(record.value)["ts"] > NOW + SKEW_MS
