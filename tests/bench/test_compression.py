"""What the bench of compression rests on: vectors that are shortened, and the plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.engine import Engine
from model.evaluation import temporal
from model.evaluation.methods.served import Served
from model.metrics import Interval
from tests.bench.bench_compression import Row, Shortened, draw
from tests.model.evaluation.worlds import ring_world


def test_shortened_vectors_say_less_and_whole_ones_what_the_engine_says() -> None:
    world = ring_world()
    engine = Engine(world.catalog, world.texts())
    exam = temporal.exams(world)[1][0]
    asked = next(iter(exam.papers())).asked
    whole = Served(world, engine, "whole", neural_only=True).scores(asked)
    directions = np.linalg.svd(engine.item_vectors, full_matrices=False)[2].T
    off = [np.abs(Shortened("", engine, directions[:, :d]).scores(asked) - whole).max() for d in (8, 4, 1)]
    assert off[0] == pytest.approx(0, abs=1e-5)
    assert off[0] < off[1] < off[2]


def test_a_plot_has_a_panel_for_each_table(tmp_path: Path) -> None:
    one = Row("fp32", {"MB": 1.0, "titles / CPU-s": 2.0}, *(Interval(0.1, 0.0, 0.2),) * 3)
    draw({"text encoder": [one], "vectors": [one]}, tmp_path / "new" / "plot.svg")
    drawn = (tmp_path / "new" / "plot.svg").read_text()
    assert drawn.startswith("<?xml") and drawn.count("axes_") >= 2
