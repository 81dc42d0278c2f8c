"""Gradient flow against closed forms, invariants, and another integrator."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import wrightomega

from amem_core import AssociationProblem, margins, zipf_frequencies
from amem_core.dynamics import gradient_flow
from amem_core.dynamics.flow import _Coordinates
from tests.oracles import autograd, member, refuses
from tests.strategies import problems_with_start

D = torch.float64
TIMES = torch.cat([torch.zeros(1, dtype=D), torch.logspace(-6, 12, 73, dtype=D)])
# what the issue of this flow promises, in margins, up to t = 1e12
ACCURACY = 1e-8


def solved(y: np.ndarray, k: float = 1.0) -> np.ndarray:
    """The m with ``exp(m) + k m = y``: ``exp(m)/k`` is the Wright omega of ``y/k - log k``, Eq. (29)."""
    return np.log(k) + np.log(wrightomega(y / k - np.log(k)))


def test_the_oracle_solves_its_equation():
    for y, k in [(1.0, 1.0), (2e12, 1.0), (1.0, 3.0), (5e6, 9.0), (-20.0, 1.0)]:
        with mpmath.workdps(40):
            m = mpmath.mpf(float(solved(np.array(y), k)))
            newton = (mpmath.exp(m) + k * m - y) / (mpmath.exp(m) + k)  # how far the root is
            assert abs(newton) < 1e-13 * max(1, abs(m))


@pytest.mark.parametrize(
    "p", [[1.0], [0.5, 0.5], [0.999, 0.001], [1 - 1e-9, 1e-9], [0.1, 0.2, 0.3, 0.4], [0.0, 1.0], [0.01] * 100]
)
def test_binary_margins_follow_the_product_logarithm(p):
    p = torch.tensor(p, dtype=D)
    problem = AssociationProblem.orthonormal(len(p), 2, p=p)
    m = gradient_flow(problem, times=TIMES).tightest_margin
    # exp(m) + m = c t + 1 with c = p |e|^2 |u_1 - u_2|^2 = 2 p
    exact = solved((2 * p * TIMES[:, None] + 1).numpy())
    assert np.abs(m.numpy() - exact).max() < ACCURACY


@pytest.mark.parametrize("length", [1e-4, 1e-2, 1e2, 1e4])
def test_the_accuracy_does_not_depend_on_the_size_of_the_embeddings(length):
    for M in (2, 3):
        small = AssociationProblem.orthonormal(2, M, p=torch.tensor([0.3, 0.7], dtype=D))
        problem = AssociationProblem(small.E * length, small.U, small.targets, small.p)
        m = gradient_flow(problem, times=TIMES).tightest_margin
        y = (M * problem.p * length**2 * TIMES[:, None] + 1).numpy()
        assert np.abs(m.numpy() - solved(y, M - 1)).max() < ACCURACY


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=2))
def test_binary_margins_from_any_start(m0):
    problem = AssociationProblem.orthonormal(2, p=torch.tensor([0.25, 0.75], dtype=D))
    W0 = torch.diag(torch.tensor(m0, dtype=D))
    m = gradient_flow(problem, W0, times=TIMES).tightest_margin
    exact = solved((2 * problem.p * TIMES[:, None]).numpy() + np.array(m0) + np.exp(m0))
    assert np.abs(m.numpy() - exact).max() < ACCURACY


@pytest.mark.parametrize(("N", "M"), [(1, 3), (3, 5), (5, 10), (10, 10)])
def test_margins_of_many_classes_from_zero(N, M):
    problem = AssociationProblem.orthonormal(N, M, p=zipf_frequencies(N))
    m = gradient_flow(problem, times=TIMES).margins
    # exp(m) + (M - 1) m = 1 + M p t, the same for every wrong class
    exact = solved((1 + M * problem.p * TIMES[:, None]).numpy(), M - 1)
    wrong = torch.nn.functional.one_hot(problem.targets, M) == 0
    assert np.abs(m[:, wrong].reshape(-1, N, M - 1).numpy() - exact[..., None]).max() < ACCURACY


@given(st.integers(0, 2**31))
def test_sum_of_scores_and_differences_of_inverse_exponentials_are_conserved(seed):
    # orthonormal outputs: sum_j w_xj, and exp(-w_xi) - exp(-w_xj) for two wrong classes
    generator = torch.Generator().manual_seed(seed)
    problem = AssociationProblem.orthonormal(3, 4, p=torch.tensor([0.2, 0.3, 0.5], dtype=D))
    W0 = 2 * torch.randn(4, 4, dtype=D, generator=generator)
    w = gradient_flow(problem, W0, times=TIMES).particles
    total = w.sum(-1)
    assert float((total - total[0]).abs().max()) < 4 * ACCURACY
    wrong = torch.nn.functional.one_hot(problem.targets, 4) == 0
    X = torch.exp(-w[:, wrong].reshape(-1, 3, 3))
    difference = X[..., :1] - X[..., 1:]
    # an error of 1e-8 in w is one of 1e-8 exp(-w)
    assert float(((difference - difference[0]).abs() / X.amax(-1, keepdim=True)).max()) < 2 * ACCURACY


def test_frequencies_of_contradictory_tokens_become_probabilities():
    # one embedding, two targets: the finite minimiser reproduces p, log p_1 / p_2 apart
    p = torch.tensor([0.9, 0.1], dtype=D)
    problem = AssociationProblem.planar(torch.zeros(2), torch.tensor([0, 1]), p)
    run = gradient_flow(problem, times=TIMES)
    assert abs(float(run.tightest_margin[-1, 0]) - np.log(9.0)) < ACCURACY
    assert abs(float(run.loss[-1]) - float(torch.special.entr(p).sum())) < 1e-12


@settings(max_examples=15)
@given(problems_with_start(reach=2.0))
def test_correlated_problems_against_another_integrator(drawn):
    problem, W0 = drawn
    times = torch.tensor([0.1, 1.0, 5.0], dtype=D)
    run = gradient_flow(problem, W0, times=times)
    d = problem.d

    def field(t: float, W: np.ndarray) -> np.ndarray:
        return -autograd(torch.from_numpy(W.copy()).reshape(d, d), problem).flatten().numpy()

    other = solve_ivp(field, (0, 5), W0.flatten().numpy(), "DOP853", t_eval=times.numpy(), rtol=1e-11, atol=1e-12)
    size = 1 + float(W0.abs().max())
    assert np.abs(run.W.reshape(3, -1).numpy() - other.y.T).max() < ACCURACY * size


@given(problems_with_start(scales=(1.0, 1e-3, 1e3)))
def test_the_loss_never_rises_and_nothing_is_infinite(drawn):
    problem, W0 = drawn
    # in units of the problem: how fast a score can move
    speed = max(1.0, float(problem.E.square().sum(-1).max() * problem.U.square().sum(-1).max()))
    run = gradient_flow(problem, W0, times=TIMES[TIMES <= 1e6] / speed)
    assert torch.isfinite(run.W).all()
    # relative accuracy of margins 1e-8 is one of the loss, as far as it is not rounding
    assert bool((run.loss.diff() <= 1e-7 * run.loss[:-1] + 1e-13).all())


@given(problems_with_start(scales=(1.0, 1e-3, 1e3)))
def test_the_jacobian_is_the_derivative_of_the_velocity(drawn):
    problem, W0 = drawn
    flow = _Coordinates({name: getattr(problem, name).numpy() for name in ("E", "U", "targets", "p")}, W0.numpy())
    v, h = np.linspace(-1, 1, flow.size), 1e-5
    steps = h * np.eye(flow.size)
    differences = np.stack([(flow.velocity(v + step) - flow.velocity(v - step)) / (2 * h) for step in steps], 1)
    # truncation h^2, and rounding 1e-16 / h, of a field whose derivatives are at most of order 1
    assert np.abs(flow.jacobian(v) - differences).max() < 1e-9


def test_what_rounding_keeps_out_of_reach_is_an_error_and_not_an_endless_run():
    # tokens 0 and 2 contradict each other; their forces must cancel to within 1/t for the other classes to fade
    E = torch.tensor([[1, 0], [0, 1], [1, 0]], dtype=D)
    U = torch.randn(4, 4, dtype=D, generator=torch.Generator().manual_seed(2))
    problem = AssociationProblem(
        torch.nn.functional.pad(E, (0, 2)), U, torch.tensor([3, 1, 2]), torch.ones(3, dtype=D) / 3
    )
    run = gradient_flow(problem, times=torch.tensor([1e6]))
    # the contradiction is settled half and half, log 2 for each of the two tokens
    assert abs(float(run.loss[-1]) - 2 / 3 * np.log(2)) < 1e-4
    with pytest.raises(RuntimeError, match=r"around t = .*tolerance 1e-11.*earlier times or a larger tolerance"):
        gradient_flow(problem, times=torch.tensor([1e14]))


def test_members_of_a_batch_run_as_if_alone():
    grid = AssociationProblem.two_tokens(torch.tensor([-0.5, 0.9], dtype=D)[:, None], torch.tensor([0.6, 0.9], dtype=D))
    W0 = torch.randn(2, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    run = gradient_flow(grid, W0, times=TIMES)
    assert run.W.shape == (len(TIMES), 2, 2, 2, 2)
    for index in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        alone = gradient_flow(member(grid, torch.Size([2, 2]), index), W0, times=TIMES)
        assert torch.equal(run.margins[(slice(None), *index)], alone.margins)


@pytest.mark.parametrize(
    ("N", "M", "d", "stores"),
    [(2, 3, 6, "C"), (6, 3, 2, "weights"), (6, 2, 2, "weights"), (4, 3, 4, "C"), (30, 30, 28, "weights")],
)
def test_whichever_state_is_smaller_particles_and_matrix_agree(N, M, d, stores):
    problem = AssociationProblem.spherical(N, M, d, seed=0)
    W0 = torch.randn(d, d, dtype=D, generator=torch.Generator().manual_seed(1))
    run = gradient_flow(problem, W0, times=torch.tensor([0.0, 1.0, 10.0]))
    assert getattr(run, stores) is not None
    assert torch.equal(run.W[0], W0)
    assert float((run.margins - margins(run.W, problem)).abs().max()) < 1e-11


def test_times_may_be_anything_increasing():
    problem = AssociationProblem.orthonormal(2)
    assert gradient_flow(problem, times=torch.zeros(1)).margins.abs().max() == 0
    one = gradient_flow(problem, times=torch.tensor([7.5]))
    assert one.times.tolist() == [7.5]
    assert one.tightest_margin.shape == (1, 2)
    late = gradient_flow(problem, times=torch.tensor([1e300], dtype=D))
    assert abs(float(late.tightest_margin[0, 0]) - np.log(1e300)) < 1e-7  # c = 1; the error grows with log t


@pytest.mark.parametrize(
    ("argument", "change", "found"),
    [
        ("times", {"times": torch.zeros(0)}, "shape"),
        ("times", {"times": torch.tensor(1.0)}, "shape"),
        ("times", {"times": torch.ones(1, 2)}, "shape"),
        ("times", {"times": torch.tensor([-1.0, 2.0])}, "-1"),
        ("times", {"times": torch.tensor([2.0, 1.0])}, "2.0, 1.0"),
        ("times", {"times": torch.tensor([1.0, 1.0])}, "1.0, 1.0"),
        ("times", {"times": torch.tensor([0.0, torch.inf])}, "inf"),
        ("times", {"times": torch.tensor([0.0, torch.nan])}, "nan"),
        ("tolerance", {"tolerance": 0.0}, "0"),
        ("tolerance", {"tolerance": -1e-9}, "-1e-09"),
        ("tolerance", {"tolerance": 0.5}, "0.5"),
        ("tolerance", {"tolerance": 1e-20}, "1e-20"),
        ("tolerance", {"tolerance": torch.nan}, "nan"),
        ("W0", {"W0": torch.zeros(2, 3, dtype=D)}, "2, 3"),
    ],
)
def test_malformed_arguments_are_refused(argument, change, found):
    with refuses(argument, found):
        gradient_flow(AssociationProblem.orthonormal(2), **{"times": torch.ones(1), **change})


@pytest.mark.parametrize("M", [2, 3])
def test_a_flow_that_leaves_the_range_is_an_error(M):
    tame = AssociationProblem.orthonormal(2, M)
    huge = AssociationProblem(tame.E * 1e160, tame.U, tame.targets, tame.p)
    for times in (torch.ones(1), torch.tensor([0.0, 1e-300], dtype=D)):
        with pytest.raises(OverflowError, match="range"):
            gradient_flow(huge, times=times)
