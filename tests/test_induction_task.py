"""The bigram task: every sequence obeys its rules, and all of them together are the Markov model, exactly.

Chi-square tests are at level 0.001; seeds are fixed, so that a pass is a pass for ever.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from amem_core.data import load_shakespeare
from amem_core.induction import BigramTask, Sequences, counted_positions
from amem_core.induction.task import SEQUENCES, _alias
from tests.oracles import refuses

LEVEL = 1e-3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_square(observed: torch.Tensor, p: torch.Tensor) -> float:
    """Level of multinomial counts (rows, cells) under probabilities; cells expected below 5 times are one cell."""
    statistic, freedom = 0.0, 0
    for counts, probabilities in zip(observed.double(), p, strict=True):
        expected = counts.sum() * probabilities
        assert counts[probabilities == 0].sum() == 0, "something impossible was drawn"
        rare = expected < 5
        cells = [(counts[~rare], expected[~rare])]
        if expected[rare].sum() >= 5:
            cells.append((counts[rare].sum()[None], expected[rare].sum()[None]))
        elif len(cells[0][1]):  # too little for a cell of its own: to the most frequent one
            cells[0][0][expected[~rare].argmax()] += counts[rare].sum()
            cells[0][1][expected[~rare].argmax()] += expected[rare].sum()
        statistic += sum(float(((o - e) ** 2 / e).sum()) for o, e in cells)
        freedom += max(sum(len(e) for _, e in cells) - 1, 0)
    assert freedom > 0
    return float(chi2.sf(statistic, freedom))


def transitions(batch: Sequences, N: int) -> torch.Tensor:
    """How often each token follows each, after tokens that are no trigger of their sequence."""
    free = ~(batch.inputs[:, :, None] == batch.triggers[:, None, :]).any(-1)
    return torch.bincount(batch.inputs[free] * N + batch.targets[free], minlength=N * N).view(N, N)


def small_task(seed: int, N: int = 4, K: int = 2, length: int = 6, **options) -> BigramTask:
    p = torch.rand(N + 1, N, dtype=torch.float64, generator=seeded(seed)) + 0.05
    p[0, 1] = 0.0
    p /= p.sum(1, keepdim=True)
    return BigramTask(p[:N], p[N], torch.arange(K), length=length, **options)


# The rules of one sequence


@pytest.mark.parametrize("random_triggers", [False, True])
@pytest.mark.parametrize("no_repeat", [False, True])
def test_a_trigger_is_followed_by_its_output_and_counts_from_the_second_time_on(random_triggers, no_repeat):
    task = BigramTask.shakespeare(K=4, length=60, random_triggers=random_triggers, no_repeat=no_repeat)
    batch = task.sample(50, seeded(0))
    assert batch.tokens.shape == (50, 61) and batch.counts.any()
    for row in range(50):
        tokens = batch.tokens[row].tolist()
        rule = dict(zip(batch.triggers[row].tolist(), batch.outputs[row].tolist(), strict=True))
        assert len(rule) == 4
        assert not no_repeat or all(q != o for q, o in rule.items())
        for t in range(60):
            q = tokens[t]
            if q in rule:
                assert tokens[t + 1] == rule[q]
            assert bool(batch.counts[row, t]) == (q in rule and q in tokens[:t])


def test_the_triggers_of_shakespeare_are_its_most_frequent_characters():
    table = load_shakespeare()
    task = BigramTask.shakespeare(K=5)
    assert "".join(table.characters[k] for k in task.triggers.tolist()) == " etoa"
    others = [p for k, p in enumerate(table.p.tolist()) if k not in task.triggers.tolist()]
    assert table.p[task.triggers].min() >= max(others)


def test_absorbed_sequences_end_in_one_character():
    batch = BigramTask.shakespeare(length=200).sample(400, seeded(1))
    assert 0 < batch.absorbed.sum() < 100
    for tokens, absorbed in zip(batch.tokens, batch.absorbed, strict=True):
        assert not absorbed or len(tokens[-2:].unique()) == 1
    kept = BigramTask.shakespeare(length=200, no_repeat=True).sample(400, seeded(1))
    assert not kept.absorbed.any()


def test_counted_positions_of_chosen_sequences():
    inputs = torch.tensor([[5, 5, 5, 5], [1, 2, 3, 4], [5, 6, 6, 5]])
    expected = [[False, True, True, True], [False] * 4, [False, False, True, True]]
    assert counted_positions(inputs, torch.tensor([[5, 6]]).expand(3, 2)).tolist() == expected


# The distribution


@pytest.mark.parametrize("random_triggers", [False, True])
def test_transitions_are_those_of_the_bigram_model(random_triggers):
    task = BigramTask.shakespeare(length=100, random_triggers=random_triggers)
    observed = transitions(task.sample(3000, seeded(2)), 63)
    assert observed.sum() > 100_000
    assert chi_square(observed, task.bigram) > LEVEL
    # the test has power: a model in which one draw of fifty is uniform is told apart
    assert chi_square(observed, 0.98 * task.bigram + 0.02 / 63) < 1e-6


def test_first_tokens_and_random_triggers_come_from_the_unigram_model():
    task = BigramTask.shakespeare(K=1, length=1, random_triggers=True)
    batch = task.sample(20_000, seeded(3))
    for column in (batch.tokens[:, 0], batch.triggers[:, 0]):
        assert chi_square(torch.bincount(column, minlength=63)[None], task.unigram[None]) > LEVEL


@pytest.mark.parametrize("no_repeat", [False, True])
def test_outputs_are_uniform(no_repeat):
    task = BigramTask.shakespeare(length=1, no_repeat=no_repeat)
    batch = task.sample(20_000, seeded(4))
    cells = torch.bincount((torch.arange(5) * 63 + batch.outputs).flatten(), minlength=5 * 63).view(5, 63)
    p = torch.full((5, 63), 1 / 63, dtype=torch.float64)
    if no_repeat:
        p = torch.full((5, 63), 1 / 62, dtype=torch.float64)
        p[torch.arange(5), task.triggers] = 0.0
    assert chi_square(cells, p) > LEVEL


@pytest.mark.parametrize("p", [[1.0, 0.0], [0.0, 1.0, 0.0], [1e-300, 1.0, 0.0], [0.25] * 4, [0.7, 0.1, 0.1, 0.1, 0.0]])
def test_alias_tables_hold_the_probabilities(p):
    cut, alias = _alias(p)
    found = [0.0] * len(p)
    for k, (end, other) in enumerate(zip(cut, alias, strict=True)):
        assert k <= end <= k + 1
        found[k] += (end - k) / len(p)
        found[other] += (k + 1 - end) / len(p)
    # a few roundings of numbers of size N
    np.testing.assert_allclose(found, p, rtol=0, atol=4e-16 * len(p))
    assert all(q == 0 for q, wanted in zip(found, p, strict=True) if wanted == 0)


def test_the_tables_of_shakespeare_hold_its_probabilities():
    task = BigramTask.shakespeare()
    cut, alias = (table.view(-1, 63) for table in task._tables)
    rows = torch.arange(64).clamp(max=62)  # rows of drawn and of forced tokens, each filled up to a power of two
    wanted = torch.cat([task.bigram[rows], task.bigram[rows], task.unigram[None]])
    for row in [*range(63), *range(64, 127), 128]:
        kept = cut[row] - torch.arange(63)
        found = kept.index_add(0, alias[row], 1 - kept) / 63
        torch.testing.assert_close(found, wanted[row], rtol=0, atol=3e-14)  # 63 roundings of numbers below 63
        assert (found[wanted[row] == 0] == 0).all()


# The number of loss positions, exactly


def expected_counts(task: BigramTask, outputs: torch.Tensor) -> torch.Tensor:
    """Mean number of loss positions for each row of outputs (S, K): occurrences less those that are the first."""
    P, q = task.bigram.clone(), task.triggers
    P[q] = 0.0

    def occurrences(absorbing: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean number of triggers, and the mass that has never met one of them."""
        v, total = task.unigram.expand(len(outputs), -1).clone(), 0.0
        for _ in range(task.length):
            if absorbing is not None:
                v[:, absorbing] = 0.0
            total, alive = total + v[:, q].sum(1), v.sum(1)
            v = (v @ P).scatter_add_(1, outputs, v[:, q])
        return total, alive

    return occurrences(None)[0] - sum(1 - occurrences(k)[1] for k in q.tolist())


def brute_force(task: BigramTask) -> float:
    """The same mean from all sequences and all outputs."""
    N, K, total = task.N, len(task.triggers), 0.0
    for outputs in itertools.product(range(N), repeat=K):
        rule = dict(zip(task.triggers.tolist(), outputs, strict=True))
        for z in itertools.product(range(N), repeat=task.length):
            p = float(task.unigram[z[0]])
            for i, j in itertools.pairwise(z):
                p *= float(j == rule[i]) if i in rule else float(task.bigram[i, j])
            total += p * sum(i in rule and i in z[:t] for t, i in enumerate(z)) / N**K
    return total


def test_the_exact_mean_is_that_of_all_sequences():
    task = small_task(0, N=3, K=2, length=5)
    outputs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    # sums of 3**7 terms below 5 each
    assert abs(expected_counts(task, outputs).mean().item() - brute_force(task)) < 1e-12


def test_two_triggers_of_shakespeare_have_as_many_loss_positions_as_expected():
    task = BigramTask.shakespeare(K=2, length=64)
    exact = expected_counts(task, torch.cartesian_prod(torch.arange(63), torch.arange(63))).mean().item()
    n = task.sample(20_000, seeded(5)).counts.sum(1).double()
    # four standard errors: one test in 16,000 fails by chance, and the seed is fixed
    assert abs(n.mean().item() - exact) < 4 * n.std().item() / 20_000**0.5


def test_a_sequence_of_256_has_about_seventy_five_loss_positions():
    task = BigramTask.shakespeare()
    outputs = torch.randint(63, (1000, 5), generator=seeded(6))
    exact = expected_counts(task, outputs)  # given the outputs; the mean over outputs is drawn
    n = task.sample(4000, seeded(7)).counts.sum(1).double()
    error = (exact.var() / 1000 + n.var() / 4000).sqrt().item()
    assert abs(exact.mean().item() - n.mean().item()) < 4 * error
    assert 70 < exact.mean().item() < 80
    assert n.min() >= 0 and n.max() <= 255


# Reproducible, in any number


def test_the_same_generator_gives_the_same_bits():
    task = BigramTask.shakespeare(length=40)
    one, two, other = (task.sample(30, seeded(s)) for s in (8, 8, 9))
    for name in ("tokens", "triggers", "outputs", "counts"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert not torch.equal(one.tokens, other.tokens)


def test_more_sequences_than_walk_together():
    task = small_task(1, N=4, K=1, length=3)
    batch = task.sample(SEQUENCES + 1, seeded(10))
    assert len(batch) == SEQUENCES + 1
    assert chi_square(transitions(batch, 4)[1:], task.bigram[1:]) > LEVEL
    assert not torch.equal(batch.tokens[0], batch.tokens[-1]) or not torch.equal(batch.tokens[1], batch.tokens[-1])


def test_some_of_the_sequences():
    batch = small_task(2).sample(5, seeded(11))
    for index, rows in ((slice(1, 3), [1, 2]), (torch.tensor([4, 0]), [4, 0]), (torch.arange(5) > 3, [4])):
        assert torch.equal(batch[index].tokens, batch.tokens[rows])
        assert torch.equal(batch[index].counts, batch.counts[rows])
    assert torch.equal(batch.to("cpu").outputs, batch.outputs)


# Bad input; other shapes and dtypes in test_induction_refusals.py

HALF = torch.full((2,), 0.5, dtype=torch.float64)
MIX = HALF.expand(2, 2)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("bigram", {"bigram": 2 * MIX}),
        ("bigram", {"bigram": torch.tensor([[1.5, -0.5], [0.5, 0.5]], dtype=torch.float64)}),
        ("unigram", {"unigram": torch.tensor([0.5, float("nan")], dtype=torch.float64)}),
        ("triggers", {"triggers": torch.tensor([2])}),
        ("triggers", {"triggers": torch.tensor([0, 0])}),
        ("triggers", {"triggers": torch.tensor([], dtype=torch.int64)}),
        ("K", {"K": 2}),
        ("K", {"triggers": None}),
        ("K", {"triggers": None, "K": 3}),
        ("length", {"length": 0}),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(argument, options):
    with refuses(argument):
        BigramTask(**({"bigram": MIX, "unigram": HALF, "triggers": torch.tensor([0])} | options))


def test_bad_calls_are_refused():
    with refuses("size", "0", "1"):
        small_task(3).sample(0, seeded(0))
    with refuses("K", "64", "63"):
        BigramTask.shakespeare(K=64)
    row = torch.zeros(2, 3, dtype=torch.int64)
    with refuses("tokens", r"\(2, 3\)", r"\(2, 4\)"):
        Sequences(row, row, row, torch.zeros(2, 3, dtype=torch.bool))
