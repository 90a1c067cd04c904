"""The cross-entropy that keeps no scores against torch's, which keeps them all."""

import pytest
import torch
from torch.nn import functional as F

from model import softmax
from model.softmax import NEVER, ranking_loss


def questions(count: int, items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Users and items as leaves, targets, and a third of the items met, never a target."""
    torch.manual_seed(0)
    users, vectors = torch.randn(count, 8, requires_grad=True), torch.randn(items, 8, requires_grad=True)
    target, met = torch.randint(items, (count,)), torch.rand(count, items) < 0.3
    met[torch.arange(count), target] = False
    return users, vectors, target, met


@pytest.mark.parametrize("at_once", [1, 7 * 23, 1 << 20])
def test_loss_and_gradients_are_those_of_the_whole_softmax(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(softmax, "AT_ONCE", at_once)  # one target at a time, seven (the last of 20 are fewer), all
    users, items, target, met = questions(20, 23)
    whole = F.cross_entropy((users @ items.T).masked_fill(met, NEVER), target)
    expected = torch.autograd.grad(3 * whole, (users, items))
    loss = ranking_loss(users, items, target, met)
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, (users, items)), expected)


def test_scores_may_be_great():
    users, items, target, met = questions(4, 5)
    loss = ranking_loss(1e4 * users, items, target, met)
    assert torch.isfinite(loss) and all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, (users, items)))


def test_half_precision_is_near_and_its_gradients_fit_their_leaves():
    users, items, target, met = questions(50, 40)
    full = ranking_loss(users, items, target, met)
    expected = torch.autograd.grad(full, (users, items))
    with torch.autocast("cpu", torch.bfloat16):
        half = ranking_loss(users, items, target, met)
    found = torch.autograd.grad(half, (users, items))
    assert half.item() == pytest.approx(full.item(), rel=0.02)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999
