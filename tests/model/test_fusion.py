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


def test_steps_are_profiles_as_they_were_and_the_newest_is_fused():
    long = torch.tensor([[[0.0, 2.0], [2.0, 0.0]]])  # g_1 = (0, 2), g_2 = their mean (1, 1): dots with h: 0 and 1
    fused = fusion.steps(H, long, torch.ones(1, 2, dtype=torch.bool))
    w = math.e / (1 + math.e)
    assert fused.short.item() == pytest.approx(w)
    assert fused.vectors[0].tolist() == pytest.approx([w + (1 - w), 1 - w])


def test_the_gate_sees_both_vectors_and_the_window():
    torch.manual_seed(0)
    gate = fusion.Gate(2)
    facts, long = torch.tensor([[0.2, 0.3]]), torch.tensor([[[0.0, 2.0]]])
    there = torch.ones(1, 1, dtype=torch.bool)
    base = gate(H, long, there, facts)
    w = gate.net(torch.tensor([[1.0, 0.0, 0.0, 2.0, 0.2, 0.3]])).sigmoid().item()
    assert base.short.item() == pytest.approx(w)
    assert base.vectors[0].tolist() == pytest.approx([w, 2 * (1 - w)])
    for other in (gate(H + 1, long, there, facts), gate(H, long + 1, there, facts), gate(H, long, there, facts + 1)):
        assert other.short.item() != pytest.approx(w, abs=1e-6)


def test_facts_of_a_window_are_its_length_and_age_at_each_position():
    hour = 3_600_000
    times = torch.tensor([[0, 5 * hour, 6 * hour, 12 * hour], [0, 0, 0, 0]])
    facts = fusion.window_facts(times, torch.tensor([[False, True, True, True], [False] * 4]))
    n, hours = [0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 1.0, 7.0]
    assert facts[0, :, 0].tolist() == pytest.approx([math.log1p(x) / 10 for x in n])
    assert facts[0, :, 1].tolist() == pytest.approx([math.log1p(x) / 10 for x in hours])
    assert not facts[1].any()


def gated(short, long, mask):
    torch.manual_seed(0)
    return fusion.Gate(short.shape[1])(short, long, mask, torch.full((len(short), 2), 0.1))


FUSIONS = {
    "alpha": lambda short, long, mask: fusion.alpha(short, long, mask, 0.6),
    "attention": fusion.attention,
    "steps": fusion.steps,
    "gate": gated,
}


@pytest.fixture(params=FUSIONS)
def fuse(request):
    return FUSIONS[request.param]


def users():
    """Window vectors of three users, and profiles of 4, 2 and 0 vectors."""
    made = torch.Generator().manual_seed(3)
    mask = torch.arange(4)[None] >= torch.tensor([0, 2, 4])[:, None]
    return torch.randn(3, 5, generator=made), torch.randn(3, 4, 5, generator=made), mask


def test_the_weight_and_the_parts_are_what_the_vector_is_made_of(fuse):
    short, long, mask = users()
    fused = fuse(short, long, mask)
    torch.testing.assert_close(fused.vectors, fused.short[:, None] * short + fused.long)
    assert ((fused.short > 0) & (fused.short <= 1)).all() and (fused.short[:2] < 1).all()


def test_a_user_without_a_profile_is_their_window(fuse):
    short, long, mask = users()
    fused = fuse(short, long, mask)
    torch.testing.assert_close(fused.vectors[2], short[2])
    assert (fused.short[2].item(), fused.long[2].abs().sum().item()) == (1, 0)


def test_what_is_masked_says_nothing(fuse):
    short, long, mask = users()
    one, two = fuse(short, long, mask), fuse(short, long + 9.0 * ~mask[..., None], mask)
    torch.testing.assert_close(one.vectors, two.vectors)
    torch.testing.assert_close(fuse(short[1:2], long[1:2, 2:], mask[1:2, 2:]).vectors, one.vectors[1:2])


def test_both_parts_learn_and_nothing_is_lost_on_the_way(fuse):
    short, long, mask = users()
    short.requires_grad_(), long.requires_grad_()
    fuse(short, long, mask).vectors.square().sum().backward()
    assert short.grad.isfinite().all() and long.grad.isfinite().all()
    assert (short.grad.abs().sum(1) > 0).all()
    assert (long.grad.abs().sum(2) > 0).tolist() == mask.tolist()
