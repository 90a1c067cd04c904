"""One contract for all short-term encoders; and what two of them promise beyond it."""

import pytest
import torch

from model import shortterm
from model.config import ModelConfig
from model.shortterm.base import NEWEST, time_bucket

ENCODERS = {
    "gpt": {},
    "lstm": {},
    "gru": {},
    "lstm both ways": {"short_term": "lstm", "both_ways": True},
    "gru both ways": {"short_term": "gru", "both_ways": True},
    "cnn": {},
    "cnn-lstm-attention": {},
}
B, K, D = 3, 7, 16
EMPTY = [0, 3, K]  # interactions that the rows lack on the left: none, some, all


@pytest.fixture(params=ENCODERS)
def encoder(request):
    torch.manual_seed(0)
    kind = {"short_term": request.param, **ENCODERS[request.param]}
    return shortterm.make(ModelConfig.model_validate({"dim": D, "layers": 2, "window": 12, **kind})).eval()


def windows(seed=0):
    """Items, actions, times and what is there: rows of 7, 4 and 0 interactions."""
    made = torch.Generator().manual_seed(seed)
    there = torch.arange(K)[None] >= torch.tensor(EMPTY)[:, None]
    items = torch.randn(B, K, D, generator=made) * there[..., None]
    actions = torch.randint(1, 6, (B, K), generator=made) * there
    times = torch.randint(1, 10**6, (B, K), generator=made).cumsum(1) * there
    return items, actions, times, there


def test_a_vector_for_every_position_and_none_where_nothing_is(encoder):
    out = encoder(*windows())
    assert out.shape == (B, K, D)
    assert (out.abs().sum(-1) > 0).tolist() == windows()[3].tolist()


def test_the_newest_alone_is_what_the_whole_says_there(encoder):
    torch.testing.assert_close(encoder(*windows(), last=True), encoder(*windows())[:, -1])


def test_padding_changes_nothing(encoder):
    padded = [torch.cat([torch.zeros_like(c[:, :4]), c], 1) for c in windows()]
    torch.testing.assert_close(encoder(*padded)[:, 4:], encoder(*windows()))
    assert encoder(*padded)[:, :4].abs().sum() == 0


def test_the_rows_beside_it_change_nothing(encoder):
    alone = encoder(*(c[1:2, EMPTY[1] :] for c in windows()))
    torch.testing.assert_close(encoder(*windows())[1:2, EMPTY[1] :], alone)


def test_a_position_sees_nothing_newer_than_itself(encoder):
    items, actions, times, there = windows()
    newer = torch.arange(K) >= 5
    changed = (items + newer[:, None], torch.where(newer, 7, actions), times + 10**8 * newer, there)
    one, two = encoder(items, actions, times, there), encoder(*changed)
    torch.testing.assert_close(one[:2, :5], two[:2, :5])
    assert ((one - two)[:2, 5:].abs().sum(-1) > 1e-4).all()


def test_every_older_interaction_matters(encoder):
    items, actions, times, there = windows()
    newest = encoder(items, actions, times, there, last=True)[0]
    for k in range(K - 1):
        changed = items.clone()
        changed[0, k] *= -1
        assert (encoder(changed, actions, times, there, last=True)[0] - newest).abs().max() > 1e-5, k


@pytest.mark.parametrize("column", [1, 2])
def test_actions_and_time_gaps_matter(encoder, column):
    changed = list(windows())
    changed[column] = changed[column].clone()
    changed[column][0, : K - 2] += {1: 3, 2: -(10**7)}[column]
    one, two = encoder(*windows(), last=True), encoder(*changed, last=True)
    assert (one - two)[0].abs().max() > 1e-5


def test_a_span_of_time_is_all_that_a_clock_says(encoder):
    items, actions, times, there = windows()
    torch.testing.assert_close(encoder(items, actions, (times + 10**11) * there, there), encoder(*windows()))


def test_without_times_no_clock_changes_anything(encoder):
    items, actions, times, there = windows()
    encoder.timed = False
    torch.testing.assert_close(encoder(items, actions, times * 7, there), encoder(*windows()))
    assert not shortterm.make(ModelConfig(dim=D, times=False)).timed


def test_every_weight_learns(encoder):
    encoder.train()
    items, *rest = windows()
    items.requires_grad_()
    encoder(items, *rest).square().sum().backward()
    # position biases and embeddings of what did not occur may stay as they are, but in no table all
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert items.grad is not None and torch.isfinite(items.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_windows_of_nothing_are_zero_and_learn_nothing(encoder):
    encoder.train()
    items, actions, times = torch.zeros(2, 1, D), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1).long()
    out = encoder(items, actions, times, torch.zeros(2, 1, dtype=torch.bool), last=True)
    assert out.tolist() == torch.zeros(2, D).tolist()
    out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_an_encoder_is_its_weights(encoder):
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    before = encoder(*windows())
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(1.0)
    encoder.load_state_dict(state)
    torch.testing.assert_close(encoder(*windows()), before)


def test_a_window_that_is_closed_is_read_from_its_newest_end_too():
    torch.manual_seed(0)
    config = ModelConfig(short_term="lstm", both_ways=True, dim=D, layers=1)
    encoder = shortterm.make(config).eval()
    with torch.no_grad():  # only what is read backwards is left to tell
        encoder.both.weight[:, :D] = 0
    one = encoder(*windows(), last=True)
    items, *rest = windows()
    changed = items.clone()
    changed[0, 0] *= -1
    assert (encoder(changed, *rest, last=True) - one)[0].abs().max() > 1e-5


@pytest.mark.parametrize(("ms", "bucket"), [(-5, 0), (0, 0), (999, 0), (1000, 1), (3000, 2), (2**50, 25)])
def test_a_time_gap_is_counted_in_doublings_of_a_second(ms, bucket):
    assert time_bucket(torch.tensor([ms])).item() == bucket


@pytest.mark.parametrize("users", [1, 40], ids=["for a few users", "for many"])
def test_a_window_without_one_of_its_newest_is_what_reading_it_anew_says(encoder, users):
    items, actions, times, there = (torch.cat(c) for c in zip(*(windows(seed) for seed in range(users)), strict=True))
    whole, without = encoder.followed(items, actions, times, there)
    assert torch.allclose(whole, encoder(items, actions, times, there, last=True), atol=1e-6)
    if without is None:
        return
    for place in range(NEWEST):
        left = K - NEWEST + place
        keep = [0, *(k for k in range(K) if k != left)]  # moved right by one; column 0 is emptied

        def shorter(column, keep=keep):
            moved = column[:, keep].clone()
            moved[:, 0] = 0
            return moved

        anew = encoder(*map(shorter, (items, actions, times, there)), last=True)
        rows = there[:, left]
        assert torch.allclose(without[rows, place], anew[rows], atol=1e-6)


def test_heads_share_a_vector_out_evenly():
    with pytest.raises(ValueError, match="dim 17 is not shared out evenly among 2 heads"):
        ModelConfig(short_term="gpt", dim=17)
    assert ModelConfig(short_term="gru", dim=17).dim == 17


def test_the_default_encoder_reads_no_window_twice():
    torch.manual_seed(0)
    default = shortterm.make(ModelConfig(dim=D)).eval()
    assert default.followed(*windows())[1] is not None


def test_a_window_can_be_read_again_after_others_were_in_inference():
    default = shortterm.make(ModelConfig(dim=D)).eval()
    for mode in (True, False):  # what is made once for both
        with torch.inference_mode(mode):
            without = default.followed(*windows())[1]
    assert without is not None
    assert without.requires_grad
