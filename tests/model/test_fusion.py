"""Fusion of short and long, by hand."""

import math

import pytest
import torch

from model import fusion

H = torch.tensor([[1.0, 0.0]])


def test_attention_weighs_the_window_by_the_newest_segment():
    long = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]])  # dots with h: 0 and 1
    newest = math.e / (1 + math.e)
    fused = fusion.attention(H, long, torch.ones(1, 2, dtype=torch.bool))
    assert fused.short.item() == pytest.approx(newest)
    profile = [newest, 2 * (1 - newest)]
    expected = [newest + (1 - newest) * profile[0], (1 - newest) * profile[1]]
    assert fused.vectors[0].tolist() == pytest.approx(expected)
    assert fused.long[0].tolist() == pytest.approx([(1 - newest) * p for p in profile])


def test_attention_over_padding_is_attention_over_what_is_there():
    long = torch.tensor([[[9.0, 9.0], [0.0, 2.0], [1.0, 0.0]]])
    padded = fusion.attention(H, long, torch.tensor([[False, True, True]]))
    plain = fusion.attention(H, long[:, 1:], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(padded.vectors, plain.vectors)


@pytest.mark.parametrize("segments", [1, 0])
def test_a_user_with_one_segment_or_none_is_their_window(segments):
    fused = fusion.attention(H, torch.full((1, 1, 2), 7.0), torch.tensor([[segments == 1]]))
    assert (fused.vectors.tolist(), fused.short.tolist(), fused.long.tolist()) == ([[1, 0]], [1], [[0, 0]])


def test_alpha_mixes_the_window_with_the_mean_of_the_profile():
    long = torch.tensor([[[0.0, 2.0], [0.0, 4.0], [9.0, 9.0]]])
    fused = fusion.alpha(H, long, torch.tensor([[True, True, False]]), 0.75)
    assert fused.vectors.tolist() == [[0.75, 0.75]]
    assert (fused.short.tolist(), fused.long.tolist()) == ([0.75], [[0, 0.75]])


def test_alpha_without_a_profile_is_the_window():
    fused = fusion.alpha(H, torch.ones(1, 1, 2), torch.tensor([[False]]), 0.75)
    assert (fused.vectors.tolist(), fused.short.tolist()) == ([[1, 0]], [1])
