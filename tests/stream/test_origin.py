"""Which clusters and topics a state may go on with."""

from __future__ import annotations

import msgpack
import pytest

from stream.errors import StateError
from stream.kafka.identity import Identity
from stream.process.origin import Origin

STORED = Origin("cluster-1", {"click": "id-1", "view": "id-2"}, 4)


def test_what_is_packed_is_unpacked() -> None:
    assert Origin.unpack(STORED.pack()) == STORED
    with pytest.raises(ValueError, match="version 9"):
        Origin.unpack(msgpack.packb((9, "", {}, 1)) or b"")


def test_an_origin_is_what_the_cluster_says() -> None:
    assert Origin.of(Identity("cluster-1", {"click": ("id-1", 4), "view": ("id-2", 4)}), 4) == STORED


def test_the_same_topics_go_on() -> None:
    assert STORED.after(STORED, "v1") == STORED


def test_a_topic_that_is_read_from_now_on_is_added_and_one_that_is_no_longer_read_stays() -> None:
    now = Origin("cluster-1", {"click": "id-1", "buy": "id-3"}, 4)
    assert now.after(STORED, "v1").topics == {"click": "id-1", "view": "id-2", "buy": "id-3"}


def test_what_old_brokers_do_not_tell_is_not_held_against_them() -> None:
    assert Origin("", {"click": "", "view": ""}, 4).after(STORED, "v1") == STORED
    assert STORED.after(Origin("", {"click": "", "view": ""}, 4), "v1") == STORED


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (Origin("cluster-2", {"click": "id-1"}, 4), "kept beside cluster cluster-1, and this is cluster cluster-2"),
        (Origin("cluster-1", {"click": "id-9"}, 4), "topic click was deleted and made again"),
        (Origin("cluster-1", {"click": "id-1"}, 8), "kept over 4 partitions, and the input topics have 8"),
    ],
)
def test_another_origin_is_refused_with_what_to_do(now: Origin, told: str) -> None:
    with pytest.raises(StateError, match=told) as refused:
        now.after(STORED, "v1")
    assert "eddyline backfill --as" in refused.value.remedy
    assert refused.value.exit_code == 5
