"""The fallback's numpy is the fusion `alpha` of torch: two ways to compute one vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from model import fusion
from model.baselines import Fallback
from model.history import WINDOW
from model.mix import Mix
from tests.model.worlds import met, shelf, text_vectors

N, DIM = 30, 8
CATALOG, TEXT = shelf(N), text_vectors(N, DIM)
USERS = ([1, 2, 3], [], [4], list(range(20)), [k % 7 for k in range(60)])


def by_torch(windows, rows, profiles, alpha):
    """The same vectors by the definition: means of centred texts, and `fusion.alpha`."""
    text = torch.from_numpy(TEXT)
    items = normalize(text - text.mean(0), dim=-1)
    short = torch.zeros(len(rows), DIM)
    long = torch.zeros(len(rows), max(1, *map(len, profiles)), DIM)
    mask = torch.zeros(long.shape[:2], dtype=torch.bool)
    for b, row in enumerate(rows):
        known = [k for k in range(len(row)) if row[k] >= 0]
        for newer, k in enumerate(reversed(known)):
            short[b] += float(windows.weights[b, k]) * 0.9**newer * items[int(row[k])]
        if len(profiles[b]):
            vectors = normalize(torch.from_numpy(profiles[b]) - text.mean(0), dim=-1)
            long[b, -len(vectors) :], mask[b, -len(vectors) :] = vectors, True
    return fusion.alpha(normalize(short, dim=-1), long, mask, alpha)


@pytest.mark.parametrize("profiled", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.85, 1.0])
def test_reading_without_torch_is_fusing_by_alpha(alpha, profiled):
    fallback, h = Fallback(DIM, Mix(alpha=alpha)), met(*USERS)
    fallback.item_vectors(CATALOG.hashes, TEXT)
    windows = h.window(WINDOW)
    rows = CATALOG.index_of(windows.items)
    profiles = fallback.long_term(TEXT, CATALOG.titles, None).profiles(h, CATALOG.index_of(h.items))
    if not profiled:
        profiles = [np.zeros((0, DIM), np.float32)] * len(h)
    found = fallback.mixed(windows, rows, profiles, alpha, torch.device("cpu"))
    expected = by_torch(windows, rows, profiles, alpha)
    for part in ("vectors", "short", "long"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), atol=1e-6, err_msg=part)


def test_a_weight_for_each_user_is_that_weight_for_each():
    fallback, h = Fallback(DIM, Mix()), met(*USERS)
    fallback.item_vectors(CATALOG.hashes, TEXT)
    windows = h.window(WINDOW)
    rows = CATALOG.index_of(windows.items)
    profiles = fallback.long_term(TEXT, CATALOG.titles, None).profiles(h, CATALOG.index_of(h.items))
    alpha = np.linspace(0, 1, len(h), dtype=np.float32)[:, None]
    found = fallback.mixed(windows, rows, profiles, alpha, torch.device("cpu"))
    expected = by_torch(windows, rows, profiles, torch.from_numpy(alpha))
    for part in ("vectors", "short", "long"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), atol=1e-6, err_msg=part)
