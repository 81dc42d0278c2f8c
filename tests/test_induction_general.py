"""The general transformer: torch's own attention, no look ahead, what one layer cannot do, its accuracy."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from amem_core.induction import (
    GeneralConfig,
    GeneralTransformer,
    accuracy_interval,
    positions_right,
    strongest,
)
from tests.oracles import refuses

SMALL = GeneralConfig(
    d=8, length=16, sequences=6, held_out=5, rate=1e-2, warm_up=2, steps=12, record_every=4, maps_at=(0, 7, 12), shown=3
)
DOUBLE = torch.float64


def some_tokens(B: int = 3, T: int = 10, N: int = 7) -> torch.Tensor:
    return torch.randint(N, (B, T), generator=torch.Generator().manual_seed(5))


def large(**shape) -> GeneralTransformer:
    """A model in double precision whose weights are far from their start: attention is not near uniform."""
    model = GeneralTransformer(7, 10, 8, **shape).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=DOUBLE))
    return model


# The model


def by_torch(model: GeneralTransformer, tokens: torch.Tensor) -> torch.Tensor:
    """The same logits by torch's own attention module, with copied weights."""
    T, d = tokens.shape[1], model.d
    h = F.embedding(tokens, model.embedding.weight) + model.position.weight[:T]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    for layer in model.layers:
        own, norm, block = layer.attention, layer.norm, layer.feed_forward
        theirs = nn.MultiheadAttention(d, own.heads, bias=False, batch_first=True, dtype=DOUBLE)
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat([own.query.weight, own.key.weight, own.value.weight]))
            theirs.out_proj.weight.copy_(own.output.weight)
        x = F.layer_norm(h, (d,), norm.weight, norm.bias)
        h = h + theirs(x, x, x, attn_mask=future, need_weights=False)[0]
        if block is not None:
            y = F.layer_norm(h, (d,), block[0].weight, block[0].bias)
            h = h + F.linear(F.gelu(F.linear(y, block[1].weight, block[1].bias)), block[3].weight, block[3].bias)
    return F.layer_norm(h, (d,), model.norm.weight, model.norm.bias) @ model.unembedding.weight.T


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("feed_forward", [False, True])
def test_the_model_is_that_of_torch(layers, heads, feed_forward):
    model, tokens = large(layers=layers, heads=heads, feed_forward=feed_forward), some_tokens()
    torch.testing.assert_close(model(tokens), by_torch(model, tokens), rtol=1e-10, atol=1e-10)  # double precision


def test_maps_are_what_was_attended_to():
    model, tokens = large(layers=2, heads=2), some_tokens()
    logits, a = model(tokens, maps=True)
    assert a.shape == (3, 2, 2, 10, 10) and torch.equal(logits, model(tokens))
    assert (a.triu(1) == 0).all() and (a >= 0).all()
    torch.testing.assert_close(a.sum(-1), torch.ones(3, 2, 2, 10, dtype=DOUBLE))
    layer, h = model.layers[0], model.embedding(tokens) + model.position.weight[:10]
    x = layer.norm(h)
    q, k, v = (part(x).view(3, 10, 2, 4).transpose(1, 2) for part in (model.layers[0].attention.query,
               layer.attention.key, layer.attention.value))  # fmt: skip
    torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v, is_causal=True), a[:, 0] @ v)


@pytest.mark.parametrize("feed_forward", [False, True])
def test_no_position_sees_a_later_one(feed_forward):
    model, tokens = large(layers=2, feed_forward=feed_forward), some_tokens()
    before = model(tokens)
    for at in range(1, 10):
        changed = tokens.clone()
        changed[:, at] = (changed[:, at] + 1) % 7
        after = model(changed)
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=1e-12, atol=1e-12)
        assert ((after[:, at:] - before[:, at:]).abs().amax((1, 2)) > 1e-6).all()
        torch.testing.assert_close(model(tokens[:, :at]), before[:, :at], rtol=1e-12, atol=1e-12)


def test_the_seed_decides_and_torchs_own_randomness_is_left_alone():
    torch.manual_seed(3)
    wanted, _ = torch.rand(2), torch.manual_seed(3)
    one = GeneralTransformer(7, 10, 8, seed=4)
    assert torch.equal(torch.rand(2), wanted)
    two, other = GeneralTransformer(7, 10, 8, seed=4), GeneralTransformer(7, 10, 8, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.position.weight, other.position.weight)
    assert one.position.weight.std().item() == pytest.approx(8**-0.5, rel=0.3)


def test_the_strongest_are_those_of_a_sort():
    a = large(layers=1)(some_tokens(), maps=True)[1][0, 0, 0].detach()
    for t, pairs in enumerate(strongest(a, few=3)):
        percent = (100 * a[t, : t + 1]).round().long().tolist()
        ordered = sorted(range(t + 1), key=lambda j: (-percent[j], j))[:3]
        assert pairs == [[j, percent[j]] for j in ordered if percent[j] >= 1]


# What one layer cannot do


def test_one_layer_without_positions_does_not_know_the_order():
    one, two = large(layers=1, feed_forward=True), large(layers=2)
    for model in (one, two):
        model.position.weight.data.zero_()
    tokens = some_tokens(B=1, T=9)
    shuffled = tokens.clone()
    shuffled[0, :8] = tokens[0, torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(one(shuffled)[:, -1], one(tokens)[:, -1], rtol=1e-11, atol=1e-11)
    assert (two(shuffled)[:, -1] - two(tokens)[:, -1]).abs().max() > 1e-3  # in two layers the mask itself tells order


FOUR = [(0, 2, 1, 3, 0), (1, 3, 0, 2, 0), (0, 3, 1, 2, 0), (1, 2, 0, 3, 0)]  # after 0 comes 2, 2, 3, 3


def preferences(model: GeneralTransformer) -> torch.Tensor:
    """Logit of 2 minus logit of 3 at the end of the four sequences."""
    logits = model(torch.tensor(FOUR))[:, -1]
    return logits[:, 2] - logits[:, 3]


@pytest.mark.parametrize("seed", range(4))
def test_one_head_of_one_layer_without_a_shift_binds_at_most_three_of_four(seed):
    """The numerators and the denominator of attention add up over positions, and so do the signs they decide."""
    model = GeneralTransformer(4, 5, 8, layers=1, seed=seed).double()
    optimiser = torch.optim.Adam([p for name, p in model.named_parameters() if name != "norm.bias"], lr=0.03)
    right = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=DOUBLE)
    best = 0
    for _ in range(200):
        loss = F.softplus(-right * preferences(model)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        best = max(best, int((right * preferences(model) > 0).sum()))
    assert best <= 3
    # numerator + denominator: the identity behind it, at these weights
    h = model.embedding(torch.tensor(FOUR)) + model.position.weight
    x, layer = model.layers[0].norm(h), model.layers[0].attention
    score = ((layer.query(x[:, -1:]) * layer.key(x)).sum(-1) / 8**0.5).exp()
    u = (model.unembedding.weight[2] - model.unembedding.weight[3]) * model.norm.weight
    u = u - u.mean()  # the layer norm takes the mean away; its length does not change the sign
    S = (score * (layer.output(layer.value(x)) @ u)).sum(1) + score.sum(1) * (h[:, -1] @ u)
    assert torch.equal(S > 0, preferences(model) > 0)
    torch.testing.assert_close(S[0] + S[1], S[2] + S[3])


def test_two_layers_bind_all_four():
    model = GeneralTransformer(4, 5, 8, layers=2, seed=0).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    right = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=DOUBLE)
    for _ in range(200):
        loss = F.softplus(-right * preferences(model)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (right * preferences(model) > 1).all()


# Accuracy


def test_right_positions_and_loss_are_those_of_the_definition():
    model, batch = SMALL.model(), SMALL.task.sample(7, torch.Generator().manual_seed(0))
    right, loss = positions_right(model, batch, chunk=3)
    logits = model(batch.inputs).detach()
    assert torch.equal(right, logits.argmax(-1) == batch.targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits[batch.counts], batch.targets[batch.counts]))


def test_a_batch_without_positions_that_count_has_loss_zero():
    batch = SMALL.task.sample(2, torch.Generator().manual_seed(0))
    empty = replace(batch, counts=torch.zeros_like(batch.counts))
    assert positions_right(SMALL.model(), empty)[1] == 0


def test_the_interval_is_that_of_the_ratio_of_sums():
    generator = torch.Generator().manual_seed(1)
    counted = torch.randint(1, 40, (300,), generator=generator)
    p = torch.rand(300, generator=generator)  # sequences differ: positions of one are not independent
    right = torch.binomial(counted.float(), p, generator=generator).long()
    a, low, high = accuracy_interval(right, counted, draws=20_000)
    assert a == pytest.approx((right.sum() / counted.sum()).item()) and low < a < high
    residual = (right - a * counted).double()  # of the ratio, linearised
    error = residual.square().sum().sqrt() / counted.sum()
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.05)  # 20,000 draws: 2%; linearising: 1%
    naive = (a * (1 - a) / counted.sum()).sqrt()
    assert error > 2 * naive


def test_bad_accuracies_are_refused():
    one = torch.tensor([1, 2])
    with refuses("right", "3", "counted"):
        accuracy_interval(torch.tensor([3, 0]), one)
    with refuses("counted", "0", "at least one"):
        accuracy_interval(one - one, one - one)
    with refuses("level", "1", "level < 1"):
        accuracy_interval(one, one, level=1.0)
