"""`eddyline evaluate` on a folder that nobody has seen, through the command itself."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model.dataset import DatasetError
from model.datasets import load
from model.evaluation.explanations import NothingToExplainError
from model.evaluation.methods.popularity import Popularity
from model.evaluation.methods.registry import UnknownMethodError
from model.evaluation.protocols import UnknownProtocolError
from model.evaluation.report import PlotError
from stream.console.cli import app
from stream.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten people who go round a ring of twelve items."""
    lines = [f"u{u},i{(u + n) % 12},click,{1000 * (10 * n + u)}" for n in range(9) for u in range(10)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,action,ts", *lines]))
    return tmp_path


@pytest.mark.parametrize("protocol", ["temporal", "basket", "loo", "continual"])
def test_a_folder_goes_through_every_protocol(folder: Path, protocol: str):
    asked = ["evaluate", str(folder), "--protocol", protocol, "--models", "popular,item-knn,counts", "--json"]
    done = CliRunner().invoke(app, [*asked, "--begin", "0.7"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["protocol"] == protocol
    for row in told["rows"].values():
        found = row["methods"]
        assert list(found) == ["popular", "item-knn", "counts"]
        assert found["counts"]["mrr"][0] > found["popular"]["mrr"][0]


def test_values_are_told_where_there_are_some(folder: Path):
    lines = [f"u{u},i{(u + n) % 12},click,{1000 * (10 * n + u)},{1 + (u + n) % 2}" for n in range(9) for u in range(10)]
    (folder / "events.csv").write_text("\n".join(["user,item,action,ts,value", *lines]))
    asked = ["evaluate", str(folder), "--models", "popular,fallback", "--begin", "0.7", "--rows", "temporal"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)["values"]
    assert list(values) == ["mean", "biases", "biases + fallback"]
    assert values["mean"]["mae"][0] == pytest.approx(0.5, abs=0.01)  # every second is a 2, the others are 1
    assert values["biases"]["mae"][0] < 0.35  # an item always has the same
    assert "values of 27 events: MAE" in CliRunner().invoke(app, asked).stdout


def test_a_table_and_a_plot_for_people(folder: Path):
    plot = folder / "plot.svg"
    asked = ["evaluate", str(folder), "--models", "popular,counts", "--rows", "strict", "--plot", str(plot)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "strict: 9 questions" in done.stdout
    assert "HR@10 by segment" in done.stdout
    assert plot.read_text().startswith("<?xml")


def test_reasons_are_held_against_scores(folder: Path):
    asked = ["evaluate", str(folder), "--models", "popular,fallback", "--begin", "0.7", "--explanations", "20"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["explanations"]
    assert list(told) == ["fallback"]
    assert told["fallback"]["rankers"]["reasons"]["first"][0] > told["fallback"]["rankers"]["chance"]["first"][0]
    done = CliRunner().invoke(app, asked)
    assert "above chance" in done.stdout
    with pytest.raises(NothingToExplainError, match="name fallback"):
        CliRunner().invoke(
            app, ["evaluate", str(folder), "--models", "popular", "--explanations", "5"], catch_exceptions=False
        )


def test_groups_of_items_and_users(folder: Path):
    (folder / "users.csv").write_text("user,team\n" + "\n".join(f"u{u},red" for u in range(10)))
    asked = ["evaluate", str(folder), "--models", "popular,counts", "--rows", "temporal", "--begin", "0.7"]
    asked += ["--groups", "items,team"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["rows"]["temporal"]
    assert row["quality"]["team red"]["users"] == 10
    assert sum(group["places"]["counts"] for group in row["exposure"].values()) == pytest.approx(1)
    done = CliRunner().invoke(app, asked)
    assert "temporal: HR@10 and NDCG@10 by group of users" in done.stdout


def test_noise_is_put_into_what_is_learned(folder: Path):
    asked = ["evaluate", str(folder), "--models", "counts", "--begin", "0.7", "--no-tune", "--noise", "misclicks"]
    done = CliRunner().invoke(app, [*asked, "--share", ".1,.5", "--json"])
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)["methods"]["counts"]) == ["0", "0.1", "0.5"]
    done = CliRunner().invoke(app, [*asked, "--share", "1"])
    assert "misclicks: 27 questions" in done.stdout
    for more, said in (
        (["--share", "much"], "give numbers with commas between them"),
        (["--protocol", "loo"], "leave --protocol out"),
    ):
        with pytest.raises(ConfigError, match=said):
            CliRunner().invoke(app, [*asked, *more], catch_exceptions=False)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (["--models", "eaze"], UnknownMethodError, "use some of popular"),
        (["--rows", "strct"], UnknownProtocolError, "use some of temporal, strict"),
        (["--plot", "nowhere/plot.svg"], PlotError, "there is no folder"),
        (["--plot", "plot.foo"], PlotError, r"use .png, .svg or .pdf"),
        (["--groups", "items,team"], DatasetError, "write it into users.csv"),
        (["--noise", "bots", "--share", "-1"], ConfigError, "give shares above 0"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_learned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], error: type[Exception], said: str
):
    monkeypatch.setattr(Popularity, "learn", lambda *_: pytest.fail("it was learned"))
    asked = ["evaluate", str(folder), "--models", "popular", *more]
    with pytest.raises(error, match=said):
        CliRunner().invoke(app, asked, catch_exceptions=False)


def test_names_are_read_with_spaces_and_each_once(folder: Path):
    asked = ["evaluate", str(folder), "--models", "popular, counts,,popular", "--rows", "temporal,", "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert {row: list(of["methods"]) for row, of in json.loads(done.stdout)["rows"].items()} == {
        "temporal": ["popular", "counts"]
    }


def test_workers_that_share_no_counts_are_worse(folder: Path):
    found = []
    for shards in ("1", "10"):
        asked = ["evaluate", str(folder), "--models", "counts", "--rows", "temporal", "--begin", "0.7", "--no-tune"]
        done = CliRunner().invoke(app, [*asked, "--shards", shards, "--json"])
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout)["rows"]["temporal"]["methods"]["counts"]["mrr"][0])
    assert found[0] > found[1] + 0.2  # who is alone has never met what comes next


def test_data_that_is_brought_says_where_it_should_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("EDDYLINE_DATA", raising=False)
    with pytest.raises(DatasetError, match=r"set EDDYLINE_DATA to the folder that holds ml1m/sequences.txt.gz"):
        load("ml1m", tmp_path)
    monkeypatch.setenv("EDDYLINE_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="not found; EDDYLINE_DATA must be the folder"):
        load("diginetica", tmp_path)
