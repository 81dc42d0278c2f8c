"""The task as a Markov chain: against enumeration, samples, the stationary law; what is read off maps and models."""

import itertools

import numpy as np
import pytest
import torch

from amem_core.induction import BigramTask, GeneralTransformer, accuracy_interval, counted_positions
from amem_core.induction.chain import (
    caught,
    expected_loss_positions,
    long_run_share,
    outputs_with_and_without,
    transition_given,
)
from amem_core.induction.readings import logits_with, most_right, previous_share, stratified_interval, trigger_shares
from tests.oracles import refuses

DOUBLE = torch.float64


def small(length: int = 5) -> BigramTask:
    """Four tokens, two triggers."""
    bigram = torch.rand(4, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    bigram = bigram / bigram.sum(1, keepdim=True)
    unigram = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=DOUBLE)
    return BigramTask(bigram, unigram, torch.tensor([2, 0]), length=length)


def test_the_expectation_is_that_over_all_sequences():
    task = small()
    every = torch.tensor(list(itertools.product(range(4), repeat=2)))  # all outputs: own, trigger, other
    chain, found = transition_given(task, every), expected_loss_positions(task, every)
    z = torch.tensor(list(itertools.product(range(4), repeat=task.length)))
    count = counted_positions(z, task.triggers.expand(len(z), -1)).sum(1).double()
    for P, value in zip(chain, found, strict=True):
        probability = task.unigram[z[:, 0]] * P[z[:, :-1], z[:, 1:]].prod(1)
        assert probability.sum().item() == pytest.approx(1, abs=1e-12)
        assert value.item() == pytest.approx((probability * count).sum().item(), rel=1e-12)


@pytest.mark.parametrize("no_repeat", [False, True])
def test_samples_agree_with_the_expectation(no_repeat):
    task = BigramTask.shakespeare(length=64, no_repeat=no_repeat)
    batch = task.sample(4000, torch.Generator().manual_seed(0))
    excess = batch.counts.sum(1) - expected_loss_positions(task, batch.outputs)
    # a sum of 4000 independent terms of mean 0: beyond 4 standard errors once in 16,000 seeds
    assert abs(excess.mean()) < 4 * excess.std() / 4000**0.5
    assert (excess.mean().abs() < 0.5).all()


def test_the_long_run_share_is_that_of_the_stationary_law():
    task = BigramTask.shakespeare()
    _, outputs = outputs_with_and_without(task, 5, seed=3)
    chain, share = transition_given(task, outputs), long_run_share(task, outputs)
    for P, value in zip(chain, share, strict=True):
        law = torch.linalg.matrix_power(P, 4096)[0]
        assert value.item() == pytest.approx(law[task.triggers].sum().item(), rel=1e-9)


def test_a_trigger_may_lead_to_a_trigger():
    task = small()
    leads = torch.tensor([[0, 1]])  # 2 is followed by 0, 0 by 1
    law = torch.linalg.matrix_power(transition_given(task, leads)[0], 512)[0]
    assert long_run_share(task, leads).item() == pytest.approx(law[task.triggers].sum().item(), rel=1e-12)


def test_caught_is_what_never_leaves_the_triggers():
    task = small()
    every = torch.tensor(list(itertools.product(range(4), repeat=2)))
    for outputs, found in zip(every, caught(task, every).tolist(), strict=True):
        chain = transition_given(task, outputs[None])[0]
        reached = torch.linalg.matrix_power(chain, 64)  # all entries of small() are positive: else a walk gets out
        stays = [reached[q, [1, 3]].sum() == 0 for q in task.triggers]
        assert found == any(stays), outputs


def test_the_long_run_share_gives_the_expected_count():
    task = BigramTask.shakespeare()
    _, outputs = outputs_with_and_without(task, 300, seed=1)
    free = outputs[~caught(task, outputs)]
    # K first occurrences do not count; the start is not stationary, which is worth less than one position
    assert (256 * long_run_share(task, free) - task.K - expected_loss_positions(task, free)).abs().max() < 1


def test_random_triggers_have_the_law_of_draws_without_repetition():
    task = BigramTask(small().bigram, small().unigram, None, K=2, length=2)
    drawn = task.sample(40_000, torch.Generator().manual_seed(0)).triggers
    p = task.unigram
    for first, second in itertools.permutations(range(4), 2):
        share = (drawn == torch.tensor([first, second])).all(1).double().mean().item()
        # the standard error of a share is at most 0.5 / 200
        assert share == pytest.approx((p[first] * p[second] / (1 - p[first])).item(), abs=0.01)
    assert (drawn[:, 0] != drawn[:, 1]).all()


def test_outputs_of_both_kinds_make_the_law_of_the_task():
    task, size = small(), 40_000
    own, none = outputs_with_and_without(task, size, seed=0)
    q = task.triggers
    assert (own == q).any(1).all() and not (none == q).any()
    weight = 1 - (1 - 1 / 4) ** 2
    for first, second in itertools.product(range(4), repeat=2):
        pair = torch.tensor([first, second])
        share = [(kind == pair).all(1).double().mean().item() for kind in (own, none)]
        # 16 outputs of equal probability; the standard error of a share is at most 0.5 / 200
        assert weight * share[0] + (1 - weight) * share[1] == pytest.approx(1 / 16, abs=0.01)


def test_bad_outputs_are_refused():
    task = small()
    with refuses("outputs", "4", "0 to N-1 = 3"):
        transition_given(task, torch.tensor([[4, 0]]))
    with refuses("outputs", "3", "K = 2"):
        expected_loss_positions(task, torch.zeros(1, 3, dtype=torch.int64))
    for stuck in ([[2, 1]], [[0, 2]], [[0, 0]]):
        with refuses("outputs", "", "triggers for ever"):
            long_run_share(task, torch.tensor(stuck))
    with refuses("task", "random", "fixed"):
        long_run_share(BigramTask.shakespeare(random_triggers=True), torch.zeros(1, 5, dtype=torch.int64))


# Maps of attention and trained models


def some_attention(T: int = 9) -> tuple[np.ndarray, list[int]]:
    """Attention whose rows are not yet divided by their sums, and tokens of which 0 and 1 trigger."""
    a = np.tril(np.random.default_rng(0).random((T, T))) + 1e-3 * np.eye(T)
    return a, [0, 5, 1, 0, 5, 1, 6, 0, 1]


def test_shares_of_attention_are_the_sums_of_their_definition():
    a, z = some_attention()
    share, own, others = trigger_shares(a, z, [0, 1])
    counting = [3, 5, 7, 8]
    assert len(share) == len(counting)
    for k, t in enumerate(counting):
        row = a[t] / sum(a[t])
        same = [row[u + 1] for u in range(t) if z[u] == z[t]]
        other = [row[u + 1] for u in range(t) if z[u] in (0, 1) and z[u] != z[t]]
        assert share[k] == pytest.approx(sum(same)) and own[k] == pytest.approx(sum(same) / len(same))
        assert others[k] == pytest.approx(sum(other) / len(other))
    assert previous_share(a) == pytest.approx(sum(a[t, t - 1] / sum(a[t]) for t in range(1, 9)) / 8)
    assert previous_share(a) == pytest.approx(previous_share(3 * a))
    assert np.isnan(trigger_shares(np.tril(np.ones((3, 3))), [0, 7, 0], [0])[2]).all()
    assert [len(x) for x in trigger_shares(a, list(range(9)), [0])] == [0, 0, 0]


@pytest.mark.parametrize(("layer", "heads"), [(0, 2), (1, 1)])
def test_replaced_attention_is_used_and_only_there(layer, heads):
    model, tokens = GeneralTransformer(7, 6, 8, layers=2, heads=heads, seed=2), torch.tensor([[3, 1, 0, 6, 1, 2]])
    before = model(tokens)

    def first_only(a):
        new = torch.zeros_like(a)
        new[..., 0] = 1.0
        return new

    found = logits_with(model, tokens, first_only, layer)
    h = model.embedding(tokens) + model.position.weight
    for number, part in enumerate(model.layers):
        x = part.norm(h)
        read = part.attention.output(part.attention.value(x[:, :1])).expand_as(x)
        h = h + (read if number == layer else part.attention(x)[0])
    torch.testing.assert_close(found, model.unembedding(model.norm(h)), rtol=1e-4, atol=1e-5)  # single precision
    assert torch.equal(model(tokens), before) and not torch.allclose(found, before, atol=1e-2)
    with pytest.raises(ZeroDivisionError):
        logits_with(model, tokens, lambda a: a / (1 // 0))
    assert torch.equal(model(tokens), before)  # no hook is left behind


FOUR = torch.tensor([[0, 2, 1, 3, 0], [1, 3, 0, 2, 0], [0, 3, 1, 2, 0], [1, 2, 0, 3, 0]])  # after 0: 2, 2, 3, 3
SIGNS = torch.tensor([1, 1, -1, -1])


def test_a_shift_of_the_last_norm_is_a_way_out():
    """Without it one head of one layer has at most three right; with it, from this start, four."""
    found = {}
    for frozen in ((), ("norm.bias",)):
        model = GeneralTransformer(4, 5, 8, layers=1, seed=15).double()
        shift = 2 * torch.randn(8, generator=torch.Generator().manual_seed(15))
        with torch.no_grad():
            model.norm.bias.copy_(shift if not frozen else 0 * shift)
            model.layers[0].attention.output.weight.mul_(6)
            model.layers[0].attention.key.weight.mul_(4)
        found[frozen] = most_right(model, FOUR, (2, 3), SIGNS, rate=0.02, scale=20, frozen=frozen)
        if frozen:
            assert (model.norm.bias == 0).all()
    assert found[()] == 4 > found["norm.bias",]


def test_the_stratified_interval_is_that_of_two_means():
    generator = torch.Generator().manual_seed(3)
    group = torch.arange(600) < 60
    counted = torch.where(group, 240, 60)
    p = torch.rand(600, generator=generator) * torch.where(group, 0.1, 0.5) + torch.where(group, 0.9, 0.2)
    right = torch.binomial(counted.float(), p, generator=generator).long()
    value, low, high = stratified_interval(right, counted, group, 0.3, draws=20_000)
    means = [(right[some] / counted[some]).double() for some in (group, ~group)]  # equal counts within each
    wanted = 0.3 * means[0].mean() + 0.7 * means[1].mean()
    error = sum((w * x.std() / len(x) ** 0.5) ** 2 for w, x in zip((0.3, 0.7), means, strict=True)) ** 0.5
    assert value == pytest.approx(wanted.item(), abs=1e-6)
    assert (high - low) / (2 * 1.96 * error.item()) == pytest.approx(1, abs=0.05)  # 20,000 draws: 2%
    exact = (right[group].sum() + right[~group].sum()) / counted.sum()
    share = (counted[group].sum() / counted.sum()).item()
    assert stratified_interval(right, counted, group, share)[0] == pytest.approx(exact.item(), abs=1e-6)
    # where the share is known, its uncertainty does not enter
    assert high - low < np.diff(accuracy_interval(right, counted)[1:])[0]


def test_bad_readings_are_refused():
    a, z = some_attention()
    with refuses("attention", "(2, 3)", "(T, T)"):
        previous_share(np.ones((2, 3)))
    with refuses("attention", "", "rows with a sum"):
        previous_share(np.zeros((3, 3)))
    with refuses("tokens", "4", "at least T = 9"):
        trigger_shares(a, z[:4], [0])
    model, one = GeneralTransformer(4, 5, 8, layers=1), torch.tensor([2, 2])
    with refuses("layer", "1", "0 to 0"):
        logits_with(model, FOUR, lambda a: a, 1)
    with refuses("frozen", "shift", "names of parameters"):
        most_right(model, FOUR, (2, 3), SIGNS, frozen=["shift"])
    with refuses("share", "1", "0 < share < 1"):
        stratified_interval(one, one, torch.tensor([True, False]), 1.0)
    with refuses("group", "2", "in both"):
        stratified_interval(one, one, torch.tensor([True, True]), 0.5)
