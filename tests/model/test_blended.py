"""Trained vectors and texts side by side: their products add up, and the window weighs alike in both."""

import numpy as np
import torch
from torch.nn.functional import normalize

from model.config import ModelConfig
from model.engine import Engine
from model.history import Histories
from model.mix import Mix
from model.online import OnlineScores
from model.reasons import left_out
from model.recommender import Recommender
from tests.model.worlds import met, shelf, text_vectors

N, WEIGHT = 20, 1.5
CATALOG, TEXT = shelf(N), text_vectors(N)
HISTORIES = met([1, 2, 3], list(range(19)), [], ["a stranger to the catalogue"])


def trained(text: float = 0.0) -> Recommender:
    """Weights as they are at the start: what is tested is arithmetic."""
    torch.manual_seed(0)
    config = ModelConfig(dim=8, text_dim=TEXT.shape[1], items=N, mix=Mix(neural=1.0, text=text))
    model = Recommender(config)
    model.set_items(CATALOG.hashes, TEXT)
    return model.eval()


def products(engine: Engine, h: Histories) -> np.ndarray:
    return engine.encode(h, engine.profiles(h)).vectors.numpy() @ engine.item_vectors.T


def test_without_a_weight_for_texts_there_is_the_trained_model_alone():
    alone, model = Engine(CATALOG, TEXT, trained()), trained()
    assert isinstance(alone.model, Recommender)
    np.testing.assert_array_equal(alone.item_vectors, model.item_vectors(CATALOG.hashes, TEXT).detach().numpy())


def test_a_blended_product_is_the_sum_of_what_each_says():
    alone, blended = Engine(CATALOG, TEXT, trained()), Engine(CATALOG, TEXT, trained(WEIGHT))
    assert blended.dim == blended.item_vectors.shape[1] == alone.dim + TEXT.shape[1]
    assert blended.name == alone.name
    centred = normalize(torch.from_numpy(TEXT - TEXT.mean(0)), dim=-1).numpy()
    text = products(blended, HISTORIES) - products(alone, HISTORIES)
    short = alone.encode(HISTORIES, alone.profiles(HISTORIES)).short.numpy()
    recent = np.array([0.9**2, 0.9, 1.0]) @ centred[[1, 2, 3]]
    assert short[0] == 1.0  # one segment: the window is all there is to know
    np.testing.assert_allclose(text[0], WEIGHT * centred @ (recent / np.linalg.norm(recent)), atol=1e-5)
    assert short[1] < 1.0 and not np.allclose(text[1], 0)
    np.testing.assert_allclose(text[2:], 0, atol=1e-6)  # nothing known, nothing said


def test_what_a_list_loses_without_an_interaction_includes_its_text():
    blended = Engine(CATALOG, TEXT, trained(WEIGHT))
    h = met([1, 2, 3])
    lists = np.arange(4, N, dtype=np.int32)[None]
    window, rows = blended.window_rows(h)
    fused = blended.encode(h, blended.profiles(h))
    items = torch.from_numpy(blended.item_vectors)

    def encode_window(windows: Histories, window_rows: np.ndarray) -> np.ndarray:
        none = [np.zeros((0, 0), np.float32)] * len(windows)
        return blended.model.encode(windows, window_rows, items, none).vectors.numpy()

    with torch.inference_mode():
        lost = left_out(window, rows, fused, blended.item_vectors, lists, encode_window)[0]
    without_3 = met([1, 2])
    expected = products(blended, h)[0, 4:] - products(blended, without_3)[0, 4:]
    np.testing.assert_allclose(lost[-1], expected, atol=1e-4)


def test_lists_and_reasons_are_made_as_with_any_model():
    engine, h = Engine(CATALOG, TEXT, trained(WEIGHT)), HISTORIES
    online = OnlineScores.empty(CATALOG)
    fused = engine.encode(h, engine.profiles(h))
    everything = np.tile(np.arange(N, dtype=np.int32), (len(h), 1))
    ranked = engine.rank(h, fused, everything, online, 5)
    assert [len(r.items) for r in ranked] == [5] * len(h)
    assert all(r.reasons and all(reasons for reasons in r.reasons) for r in list(ranked)[:2])
