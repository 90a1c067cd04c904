"""Tables: means, intervals, differences and segments, by hand."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from model.evaluation.methods.registry import make
from model.evaluation.protocols import evaluate
from model.evaluation.report import PlotError, as_dict, draw, drawable, grid_of, shown
from model.evaluation.tables import Answers, Asks, Table
from tests.model.evaluation.worlds import ring_world


def table_of(ranks: dict[str, list[list[float]]], exam: list[int], history: list[int] | None = None) -> Table:
    t = len(exam)
    asks = Asks(np.arange(t), np.arange(t), np.array(exam), np.array(history or [1] * t), np.array([0, 5, 50, 500][:t]))
    lists = np.array([[0, 1], [2, -1]], np.int32)
    answers = {name: Answers(np.array(r, float), lists, 1.0) for name, r in ranks.items()}
    return Table(2, 4, np.array([3, 1, 0, 0]), asks, answers)


def test_seeds_are_averaged_question_by_question():
    table = table_of({"a": [[1, 3], [1, 1]]}, [0, 0])
    assert table.metrics("a")["hr@2"].tolist() == [1.0, 0.5]
    assert table.metrics("a")["precision@2"].tolist() == [0.5, 0.25]
    np.testing.assert_allclose(table.metrics("a")["mrr"], [1, (1 / 3 + 1) / 2])
    np.testing.assert_allclose(table.metrics("a")["mrr@2"], [1, 0.5])


def test_exams_have_equal_weight_however_many_questions_they_have():
    table = table_of({"a": [[1, 9, 9, 9]]}, [0, 1, 1, 1])
    assert table.interval(table.metrics("a")["hr@2"]).mean == pytest.approx(0.5)


def test_a_difference_is_paired():
    table = table_of({"a": [[1, 1, 1, 9]], "b": [[9, 1, 1, 9]]}, [0, 0, 0, 0])
    assert table.difference("a", "b")["hr@2"].mean == 0.25


def test_others_are_told_by_how_far_they_are_behind_the_best():
    table = table_of({"a": [[9, 1, 1, 9]], "b": [[1, 1, 1, 9]], "c": [[9, 9, 1, 9]]}, [0, 0, 0, 0])
    assert table.best == "b"
    assert {name: row["hr@2"].mean for name, row in table.behind().items()} == {"a": 0.25, "c": 0.5}
    assert table.behind()["a"] == {m: table.difference("b", "a")[m] for m in ("hr@2", "ndcg@2")}


def test_segments_say_who_asked_and_what_for():
    table = table_of({"a": [[1, 9, 1, 9]]}, [0, 0, 0, 0], history=[0, 1, 20, 40])
    found = table.by_segment()
    assert found["new users"] == {"questions": 1, "a": 1.0}
    assert found["first events"] == {"questions": 1, "a": 0.0}
    assert found["light users"] == {"questions": 2, "a": 0.5}
    assert found["heavy users"] == {"questions": 1, "a": 0.0}
    assert found["cold items"] == {"questions": 1, "a": 1.0}
    assert found["rare items"] == {"questions": 1, "a": 0.0}
    assert found["window 1"]["questions"] == found["window 32"]["questions"] == 1


def test_rows_say_what_lists_are_like():
    row = table_of({"a": [[1, 2]]}, [0, 0]).rows(np.eye(4))["a"]
    assert row["coverage"] == 0.75
    assert row["diversity"] == 1.0
    # of 4 + 4 counts: 4, 2 and 1
    assert row["novelty"] == pytest.approx((1 + 2 + 3) / 3)


def test_an_evaluation_is_told_as_text_json_and_plot(tmp_path: Path):
    world = ring_world(users=10)
    tables = evaluate(world, "loo", make(["popular", "counts"], world), k=3, tune=False)
    told = json.loads(json.dumps(as_dict(tables, world)))["loo"]
    assert told["questions"] == 10
    assert list(told["methods"]) == ["popular", "counts"]
    mean, low, high = told["methods"]["counts"]["hr@3"]
    assert low <= mean <= high
    assert (told["best"], list(told["behind"])) == ("counts", ["popular"])
    titles = [
        "ring, loo: 10 questions of 10 users; means over users, intervals over users",
        "counts less the others, paired by user",
        "HR@3 by segment",
        "NDCG@3 of counts less the others, by segment",
    ]
    assert told["behind_by_segment"]["light users"]["popular"]["hr@3"][0] > 0
    assert [grid.title for grid in shown(tables, "ring", world)] == titles
    draw(tables, "ring", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_told_of_before_the_work(tmp_path: Path):
    with pytest.raises(PlotError, match="there is no folder"):
        drawable(tmp_path / "nowhere" / "plot.png")
    for name in ("plot.foo", "plot"):
        with pytest.raises(PlotError, match=r"use .png, .svg or .pdf"):
            drawable(tmp_path / name)
    drawable(tmp_path / "plot.PDF")


def test_no_figure_is_cut_where_a_table_is_too_narrow():
    grid = grid_of("t", ("method", "hr@10"))
    grid.add_row("cnn-lstm-attention/pooled/attention", "0.2322 [0.2094, 0.2596]")
    console = Console(width=30, record=True, file=io.StringIO())
    console.print(grid)
    said = console.export_text()
    assert "…" not in said
    assert "0.2596]" in said


def test_a_title_says_what_figures_are_means_of():
    one_each, periods = table_of({"a": [[1, 2]]}, [0, 0]), table_of({"a": [[1, 2, 3]]}, [0, 0, 1])
    assert one_each.means == "2 questions of 2 users; means over users, intervals over users"
    assert periods.means == "3 questions of 3 users; means of 2 periods, intervals over users"
    many = replace(one_each, asks=replace(one_each.asks, users=np.zeros(2, np.int64)))
    assert many.means == "2 questions of 1 users; means over questions, intervals over users"


def test_a_plot_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    world = ring_world(users=4)
    tables = evaluate(world, "loo", make(["popular"], world), k=3, tune=False)
    with pytest.raises(PlotError, match=r"eddyline\[plot\]"):
        draw(tables, "ring", tmp_path / "plot.png")
