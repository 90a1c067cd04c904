"""Names to rows and back, against a dict."""

from __future__ import annotations

import numpy as np
import pytest

from stream.windows import users
from stream.windows.users import FEW, Users

ODD = ["", "é", "日本語" * 20, "a" * 4096, " ", "user", "users"]


def test_names_come_and_go_as_in_a_dict() -> None:
    rng = np.random.default_rng(0)
    index, expected, end = Users(), dict[tuple[int, str], int](), 0
    for turn in range(40):
        partition = turn % 3
        names = [f"user-{n}" for n in rng.choice(3000, 400, replace=False)] + ODD
        found = index.find(partition, names)
        assert found.tolist() == [expected.get((partition, name), -1) for name in names]
        new = [name for name, row in zip(names, found.tolist(), strict=True) if row < 0]
        rows = np.arange(end, end + len(new))
        end += len(new)
        index.reserve(end)
        index.add(partition, rows, new)
        expected.update({(partition, name): row for name, row in zip(new, rows.tolist(), strict=True)})
        gone = [key for key in expected if rng.random() < 0.3]
        index.remove(np.array([expected.pop(key) for key in gone], np.int64))
        assert len(index) == len(expected)
    rows = np.array(list(expected.values()))
    assert [name.decode() for name in index.all_encoded(rows)] == [name for _, name in expected]
    assert all(index.row(*key) == row for key, row in expected.items())


def test_names_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "hash", lambda name: len(name), raising=False)
    names = [f"u{n}" for n in range(1000, 1200)]
    index = Users()
    index.reserve(500)
    index.add(0, np.arange(200), names)
    assert index.find(0, names).tolist() == list(range(200))
    assert index.find(0, [f"x{n}" for n in range(1000, 1100)]).tolist() == [-1] * 100
    index.remove(np.arange(0, 200, 2))
    assert index.find(0, names).tolist() == [-1 if n % 2 == 0 else n for n in range(200)]
    assert [index.row(0, name) for name in names[: FEW // 2]] == [-1 if n % 2 == 0 else n for n in range(FEW // 2)]


def test_a_name_too_long_to_be_one_is_refused() -> None:
    index = Users()
    index.reserve(1)
    with pytest.raises(ValueError, match="4097 bytes"):
        index.add(0, np.zeros(1, np.int64), ["a" * 4097])
