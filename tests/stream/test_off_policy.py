"""`eddyline evaluate --protocol off-policy` on files of messages, through the command itself."""

import gzip
import json
from pathlib import Path

import msgspec
import numpy as np
import polars
import pytest
from typer.testing import CliRunner

from model.arrange import Arranged, arrange
from model.explore import ExploreConfig
from model.terms import Terms
from stream import messages
from stream.console.cli import app
from stream.errors import ConfigError, LogError
from stream.lists.telling import drawn

LISTS, SHOWING = 400, ExploreConfig(method="epsilon", epsilon=0.5, pool=3)


def shown() -> Arranged:
    rows = np.tile(np.arange(5, dtype=np.int32), (LISTS, 1))
    utility = -rows.astype(np.float32)
    return arrange(rows, utility, Terms.plain(LISTS, 2), (), SHOWING, None, np.arange(LISTS, dtype=np.uint64))


def recommendations(lists: Arranged) -> list[bytes]:
    told = lists.explored
    assert told is not None
    found = []
    for i, (column, likely) in enumerate(zip(lists.column.tolist(), lists.propensity.tolist(), strict=True)):
        items = [
            messages.RecommendedItem(f"i{c}", rank, 0.1, round(p, 7), [])
            for rank, (c, p) in enumerate(zip(column, likely, strict=True), 1)
        ]
        source = messages.Source("v1", "click", 0, i, 1, {"click": i})
        interest = messages.Interest(1.0, 0.0, 3, None)
        event = messages.Recommendation(
            f"list{i}", f"u{i % 50}", 1, items, interest, "m@1", 1, "a", source, drawn=drawn(told.of(i, 2))
        )
        found.append(messages.encode(event))
    return found


def feedback(lists: Arranged) -> list[dict]:
    """Every list is shown but the first ten, and 0 is clicked wherever it stands; the last one is bought as well."""
    found = []
    for i, column in enumerate(lists.column.tolist()):
        for item in column:
            said = {"user": f"u{i % 50}", "recommendation": f"list{i}", "item": f"i{item}", "ts": 5}
            outcomes = ["shown"] * (i >= 10) + ["clicked"] * (item == 0) + ["bought"] * (i == LISTS - 1 and item == 0)
            found += [said | {"outcome": outcome} for outcome in outcomes]
    return found


def write(folder: Path, packed: bool) -> Path:
    lists = shown()
    lines = recommendations(lists)
    lines.append(lines[20])  # delivered twice
    told = feedback(lists)
    if packed:
        polars.DataFrame([msgspec.json.decode(line) for line in lines], infer_schema_length=None).write_parquet(
            folder / "recommendations.parquet"
        )
        (folder / "feedback.jsonl.gz").write_bytes(gzip.compress("\n".join(json.dumps(one) for one in told).encode()))
    else:
        (folder / "recommendations.jsonl").write_bytes(b"\n".join(lines))
        (folder / "feedback.jsonl").write_text("\n".join(json.dumps(one) for one in told))
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_messages_give_values(tmp_path: Path, packed: bool):
    folder = write(tmp_path, packed)
    asked = ["evaluate", str(folder), "--protocol", "off-policy", "--policies", "greedy,epsilon=1"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["lists"] == LISTS - 10
    found = told["policies"]
    assert list(found) == ["logged", "greedy", "epsilon=1"]
    # greedy always shows 0 first; two even places of three are 0 in two of three lists
    mean, low, high = found["greedy"]["ips"]
    assert low <= 1 <= high and mean == pytest.approx(1, abs=0.15)
    assert found["greedy"]["snips"][0] == pytest.approx(1, abs=1e-6)
    mean, low, high = found["epsilon=1"]["snips"]
    assert low <= 2 / 3 <= high
    table = CliRunner().invoke(app, asked).stdout
    assert "390 lists of 50 users" in table and "effective" in table


def test_an_outcome_is_worth_what_is_said_and_counts_once(tmp_path: Path):
    folder = write(tmp_path, False)
    asked = ["evaluate", str(folder), "--protocol", "off-policy", "--policies", "greedy", "--json"]
    clicked = json.loads(CliRunner().invoke(app, asked).stdout)["policies"]["logged"]["ips"][0]
    both = CliRunner().invoke(app, [*asked, "--outcomes", "clicked=1,bought=5"]).stdout
    extra = json.loads(both)["policies"]["logged"]["ips"][0] - clicked
    assert extra == pytest.approx(4 / 390) or extra == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--policies", "best"], "policy 'best' cannot be read"),
        (["--policies", "epsilon=2"], "policy 'epsilon=2' cannot be read"),
        (["--outcomes", "clicked=much"], "write clicked=1,bought=5"),
        (["--outcomes", "clicked,bougt=5"], "no outcome is called 'bougt'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, more: list[str], said: str):
    folder = write(tmp_path, False)
    with pytest.raises(ConfigError) as error:
        CliRunner().invoke(app, ["evaluate", str(folder), "--protocol", "off-policy", *more], catch_exceptions=False)
    assert said in str(error.value)


def test_lists_without_feedback_are_worth_nothing_and_what_cannot_be_read_is_counted(tmp_path: Path):
    folder = write(tmp_path, False)
    asked = ["evaluate", str(folder), "--protocol", "off-policy"]
    with (folder / "feedback.jsonl").open("a") as file:
        file.write('\n{"user": "u", "recommendation": "x", "item": "i", "outcome": 3}')
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert told["unreadable"] == 1 and told["lists"] == LISTS - 10
    assert "1 records could not be read" in CliRunner().invoke(app, asked).stdout
    (folder / "feedback.jsonl").write_text('{"user": "u", "recommendation": "another", "outcome": "shown"}')
    with pytest.raises(LogError, match=r"(?s)no list in .* has feedback\n.*bring feedback beside the recommendations"):
        CliRunner().invoke(app, asked, catch_exceptions=False)
