"""Sections, the maximum-margin solution and hitting times, against autograd, KKT and closed forms."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amem_core import AssociationProblem, loss, zero_one_loss
from amem_core.landscape import NEVER, hitting_times, max_margin, planar_directions, recall_times, section
from amem_core.landscape import hitting as module
from tests.oracles import descend, member, refuses
from tests.strategies import problems, seeds


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def plain_hitting_time(alpha, p1, rate, steps, c=2.0):
    """One cell by torch's own cross-entropy and autograd, on the matrix, step by step."""
    problem = AssociationProblem.two_tokens(alpha, p1, output_distance_squared=c)
    W = torch.zeros(2, 2, dtype=torch.float64)
    for t in range(1, steps + 1):
        W = descend(W, problem, [rate])
        w = problem.E @ W.T @ problem.U.T
        if w[0, 0] > w[0, 1] and w[1, 1] > w[1, 0]:
            return t
    return NEVER


def random_cells(n, seed):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(3, n, dtype=torch.float64, generator=generator)
    return 1.9 * draws[0] - 0.95, torch.sigmoid(5 * draws[1]), 10 ** (4 * draws[2] - 1)


# Hitting times


def test_hitting_times_are_those_of_a_plain_autograd_loop():
    alpha, p1, rate = random_cells(60, seed=0)
    alpha[:40] = 0.3 + 0.35 * (alpha[:40] + 0.95)  # where it takes more than a step
    found = hitting_times(alpha, p1, rate, steps=300)
    cells = zip(alpha.tolist(), p1.tolist(), rate.tolist(), strict=True)
    assert found.tolist() == [plain_hitting_time(*cell, 300) for cell in cells]
    assert len(set(found.tolist())) > 15 and (found == NEVER).any()


def test_hitting_times_follow_the_distance_of_the_outputs():
    cells = random_cells(15, seed=1)
    found = hitting_times(*cells, steps=100, output_distance_squared=0.3)
    expected = [plain_hitting_time(*(v[k].item() for v in cells), 100, c=0.3) for k in range(15)]
    assert found.tolist() == expected


def test_on_a_tie_rounding_decides_between_one_step_and_two():
    # alpha p1 = p2 in exact arithmetic: the second margin is 0 after one step, and positive after two
    for alpha, p1 in ((1 / 3, 0.75), (0.25, 0.8), (2 / 3, 0.6), (1.0 / 9, 0.9)):
        found = hitting_times(alpha, p1, doubles(0.1, 1.0, 7.0, 100.0), steps=10)
        assert set(found.tolist()) <= {1, 2}
        # a hair to either side there is no doubt
        assert (hitting_times(alpha - 1e-9, p1, doubles(0.1, 1.0, 7.0), steps=10) == 1).all()
        assert (hitting_times(alpha + 1e-9, p1, doubles(0.1, 1.0, 7.0), steps=10) > 1).all()


@pytest.mark.parametrize("block", [1, 7, 50])
def test_recall_times_of_a_batch_are_those_of_a_plain_autograd_loop(block):
    batch = AssociationProblem.stack([AssociationProblem.spherical(4, 3, 3, seed=seed) for seed in range(3)])
    rates, steps = doubles(1.0, 10.0), 25
    done, first = recall_times(batch, rates, steps=steps, block=block)
    assert done.shape == (2, 3) and first.shape == (2, 3, 4)
    for (r, rate), k in itertools.product(enumerate(rates.tolist()), range(3)):
        one, W, seen = member(batch, batch.batch_shape, (k,)), torch.zeros(3, 3, dtype=torch.float64), []
        for _ in range(steps):
            W = descend(W, one, [rate])
            seen.append((one.E @ W.T @ one.U.T).argmax(-1) == one.targets)
        seen = torch.stack(seen)
        when = [int(hits.nonzero()[0]) + 1 if hits.any() else steps + 1 for hits in (seen.all(-1), *seen.T)]
        assert [int(done[r, k]), *first[r, k].tolist()] == when


def test_recall_times_of_two_tokens_are_their_hitting_times():
    alpha, p1, rates = doubles(0.5, 0.9, 0.97), 0.8, doubles(0.5, 5.0)
    found, _ = recall_times(AssociationProblem.two_tokens(alpha, p1), rates, steps=400)
    expected = hitting_times(alpha, p1, rates[:, None], steps=400)
    assert torch.equal(found, torch.where(expected == NEVER, 401, expected).to(found))


def test_recall_times_refuse_bad_arguments():
    problem = AssociationProblem.two_tokens(0.5, 0.75)
    for name, options in (("steps", {"steps": 0}), ("block", {"steps": 1, "block": 0})):
        with refuses(name):
            recall_times(problem, doubles(1.0), **options)
    with refuses("rates"):
        recall_times(problem, torch.zeros(0, dtype=torch.float64), steps=1)
    with refuses("rate"):
        recall_times(problem, doubles(-1.0), steps=1)


@pytest.mark.parametrize(("pool", "block", "workers"), [(1, 1, 1), (7, 3, 2), (64, 8, 5), (10**6, 1000, 1)])
def test_neither_pool_nor_threads_change_a_cell(monkeypatch, pool, block, workers):
    alpha, p1, rate = random_cells(300, seed=2)
    expected = hitting_times(alpha, p1, rate, steps=200, workers=1)
    monkeypatch.setattr(module, "POOL", pool)
    monkeypatch.setattr(module, "BLOCK", block)
    assert torch.equal(hitting_times(alpha, p1, rate, steps=200, workers=workers), expected)


def test_the_pool_stays_small_and_done_cells_leave_it(monkeypatch):
    sizes, advance = [], module._advance
    monkeypatch.setattr(module, "POOL", 100)
    monkeypatch.setattr(module, "_advance", lambda pool: sizes.append(len(pool)) or advance(pool))
    alpha, p1, rate = random_cells(5000, seed=3)
    found = hitting_times(alpha, p1, rate, steps=1000, workers=1)
    assert max(sizes) <= 100
    work = torch.where(found == NEVER, 1000, found).sum().item()
    assert module.BLOCK * sum(sizes) < work + (module.BLOCK + 1) * 5000  # nobody stays longer than a block


@given(seeds, st.integers(1, 40))
def test_fewer_steps_only_hide_the_late_cells(seed, steps):
    cells = random_cells(40, seed)
    found, all_of_them = hitting_times(*cells, steps=steps), hitting_times(*cells, steps=200)
    hidden = torch.where(all_of_them <= steps, all_of_them, NEVER)
    assert torch.equal(found, hidden)


def test_grids_broadcast_and_scalars_are_scalars():
    alpha, p1, rate = doubles(0.2, 0.9)[:, None, None], doubles(0.6, 0.75, 0.9)[:, None], doubles(1.0, 10.0)
    grid = hitting_times(alpha, p1, rate, steps=500)
    assert grid.shape == (2, 3, 2)
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        alone = hitting_times(alpha[i, 0, 0], p1[j, 0], rate[k], steps=500)
        assert alone.shape == () and alone == grid[i, j, k]
    assert hitting_times(doubles(), 0.5, 1.0, steps=3).shape == (0,)


def test_cells_that_can_never_be_done():
    assert hitting_times(1.0, 0.75, 10.0, steps=200) == NEVER  # one input, two answers
    assert hitting_times(0.5, 0.75, 0.0, steps=200) == NEVER  # nothing moves
    assert hitting_times(0.0, 1.0, 1.0, steps=200) == NEVER  # token 2 never comes and stays at 0
    assert hitting_times(-1.0, 0.75, 1e300, steps=1) == 1


@settings(max_examples=8)
@given(seeds)
def test_the_any_rate_bound_holds(seed):
    # at most max(4 R^2 n^2 / p_min, 32 n^2 (M - 1) / (e eta p_min^2)) steps; R^2 = c, n^2 = 2 / (c (1 - alpha))
    alpha, p1, rate = random_cells(30, seed)
    least = 1 - p1
    bound = torch.maximum(8 / ((1 - alpha) * least), 32 / ((1 - alpha) * math.e * rate * least**2))
    found = hitting_times(alpha, p1, rate, steps=4000)
    assert ((found <= bound) & (found > 0))[bound < 4000].all()


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"p1": -0.1}, "p1"),
        ({"rate": -1.0}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"steps": 0}, "steps"),
        ({"workers": 0}, "workers"),
        ({"output_distance_squared": 0.0}, "output_distance_squared"),
        ({"alpha": torch.zeros(2), "rate": torch.ones(3)}, "alpha, p1, rate"),
    ],
)
def test_bad_grids_are_refused(change, argument):
    with refuses(argument):
        hitting_times(**({"alpha": 0.5, "p1": 0.75, "rate": 1.0, "steps": 5} | change))


# The maximum-margin solution


def kkt_violation(problem, W, multipliers):
    """Largest violation of feasibility, sign, stationarity and slackness, entry by entry."""
    worst, built = 0.0, torch.zeros_like(W)
    for x, z in itertools.product(range(problem.N), range(problem.M)):
        right = int(problem.targets[x])
        if z == right:
            assert multipliers[x, z] == 0
            continue
        A = torch.outer(problem.U[right] - problem.U[z], problem.E[x])
        m, lam = float((W * A).sum()), float(multipliers[x, z])
        built = built + lam * A
        worst = max(worst, 1 - m, -lam, lam / float(multipliers.max()) * abs(m - 1))
    return max(worst, float((built - W).abs().max() / W.abs().max()))


@given(problems(max_N=4, max_M=4, max_d=6))
def test_max_margin_meets_the_conditions_of_optimality(problem):
    try:
        best = max_margin(problem)
    except ValueError:
        assume(False)
    assume(best.norm_squared < 1e6)  # beyond, separable by rounding alone
    assert kkt_violation(problem, best.W, best.multipliers) < 1e-7
    assert math.isclose(float((best.W**2).sum()), best.norm_squared, rel_tol=1e-7)
    assert best.residual < 1e-7
    assert float(zero_one_loss(best.W, problem)) == 0


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.0, 0.95])
@pytest.mark.parametrize("p1", [0.5, 0.75, 1.0])
def test_max_margin_of_two_tokens_is_along_the_difference_of_the_inputs(alpha, p1):
    problem = AssociationProblem.two_tokens(alpha, p1, output_distance_squared=3.0)
    best = max_margin(problem)
    along = torch.outer(problem.U[0] - problem.U[1], problem.E[0] - problem.E[1]) / (3 * (1 - alpha))
    assert torch.allclose(best.W, along, atol=1e-12)
    assert math.isclose(best.norm_squared, 2 / (3 * (1 - alpha)), rel_tol=1e-12)


@pytest.mark.parametrize(("N", "M"), [(1, 2), (3, 2), (4, 5)])
def test_max_margin_of_orthonormal_embeddings(N, M):
    problem = AssociationProblem.orthonormal(N, M)
    best = max_margin(problem)
    centred = problem.U[problem.targets] - problem.U.mean(0)
    assert torch.allclose(best.W, centred.T @ problem.E, atol=1e-12)
    assert math.isclose(best.norm_squared, N * (1 - 1 / M), rel_tol=1e-12)


def test_a_constraint_that_does_not_bind_has_no_weight():
    E = doubles(3.0, 0.0, -0.9, 0.1).reshape(2, 2)  # the long first token is carried by the second
    best = max_margin(AssociationProblem(E, torch.eye(2, dtype=torch.float64), torch.arange(2), doubles(0.5, 0.5)))
    assert best.multipliers[0, 1] == 0
    assert math.isclose(float(best.multipliers[1, 0]), 1 / (2 * 0.82), rel_tol=1e-12)


def test_max_margin_refuses_what_cannot_be_separated():
    one = doubles(1.0, 0.0, 1.0, 0.0).reshape(2, 2)
    with refuses("problem", allowed="separable"):
        max_margin(AssociationProblem(one, torch.eye(2, dtype=torch.float64), torch.arange(2), doubles(0.5, 0.5)))
    with refuses("problem", found="zero"):
        max_margin(AssociationProblem(0 * one, torch.eye(2, dtype=torch.float64), torch.arange(2), doubles(0.5, 0.5)))
    with refuses("problem", found="batch"):
        max_margin(AssociationProblem.two_tokens(doubles(0.1, 0.2), 0.5))


# Sections


@given(problems(max_N=4, max_M=3, max_d=4), seeds)
def test_a_section_holds_the_losses_of_its_matrices(problem, seed):
    generator = torch.Generator().manual_seed(seed)
    d = problem.d
    directions, origin = (torch.randn(*s, dtype=torch.float64, generator=generator) for s in ((2, d, d), (d, d)))
    a, b = doubles(-1.5, 0.0, 2.0), doubles(0.5, 3.0)
    area = section(problem, directions, a, b, origin)
    assert area.loss.shape == area.zero_one_loss.shape == (2, 3)
    for j, i in itertools.product(range(2), range(3)):
        W = origin + a[i] * directions[0] + b[j] * directions[1]
        assert torch.allclose(area.loss[j, i], loss(W, problem), rtol=1e-12, atol=1e-14)
        assert area.zero_one_loss[j, i] == zero_one_loss(W, problem)


@given(st.floats(-0.99, 0.99), st.floats(0.5, 0.99), st.floats(0.1, 9.0))
def test_the_plane_reads_v(alpha, p1, c):
    problem = AssociationProblem.two_tokens(alpha, p1, output_distance_squared=c)
    D = planar_directions(problem)
    W = 0.7 * D[0] - 1.3 * D[1]
    assert torch.allclose(W.T @ (problem.U[0] - problem.U[1]), doubles(0.7, -1.3), atol=1e-12)


def test_bad_sections_are_refused():
    problem = AssociationProblem.two_tokens(0.5, 0.75)
    D, line = planar_directions(problem), doubles(0.0, 1.0)
    for arguments, name in (
        ((D[0], line, line), "directions"),
        ((D, line[0], line), "a"),
        ((D, line, line.float()), "b"),
        ((D, line, line, D), "origin"),
        ((D * float("nan"), line, line), "directions"),
    ):
        with refuses(name):
            section(problem, *arguments)
    with refuses("problem", found="batch"):
        section(AssociationProblem.two_tokens(doubles(0.1, 0.2), 0.5), D, line, line)
    for wrong in (AssociationProblem.orthonormal(2, 3), AssociationProblem.orthonormal(2, d=3)):
        with refuses("problem", allowed="M = d = 2"):
            planar_directions(wrong)
    same = torch.ones(2, 2, dtype=torch.float64)
    with refuses("problem", found="equal"):
        planar_directions(AssociationProblem(problem.E, same, problem.targets, problem.p))


def test_members_of_a_grid_are_problems_of_their_own():
    grid = AssociationProblem.two_tokens(doubles(0.1, 0.6), 0.75)
    one = member(grid, torch.Size([2]), (1,))
    assert math.isclose(max_margin(one).norm_squared, 2 / (2 * 0.4), rel_tol=1e-12)
