"""Gradient descent and what every dynamics shares: schedules, records, starts, errors."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import amem_core
from amem_core import AssociationProblem
from amem_core.dynamics import (
    gradient_descent,
    gradient_flow,
    practical_descent,
    stochastic_gradient_descent,
    stochastic_gradient_flow,
)
from tests.oracles import descend, refuses
from tests.strategies import problems_with_start

D = torch.float64
PROBLEM = AssociationProblem.gaussian(4, 3, 5, seed=1)
BINARY = AssociationProblem.two_tokens(0.5, 0.75)
#: each dynamics on a problem, three steps or times
DYNAMICS = {
    "flow": lambda problem, W0=None: gradient_flow(problem, W0, times=torch.tensor([0.5, 1.0, 2.0])),
    "descent": lambda problem, W0=None: gradient_descent(problem, W0, rate=0.5, steps=3),
    "embeddings": lambda problem, W0=None: gradient_descent(problem, W0, rate=0.5, steps=3, space="embeddings"),
    "stochastic descent": lambda problem, W0=None: stochastic_gradient_descent(
        problem, W0, rate=0.5, steps=3, batch_size=2, seed=4
    ),
    "mini-batch noise": lambda problem, W0=None: stochastic_gradient_flow(
        problem, W0, duration=1.0, steps=3, sigma=0.1, seed=4
    ),
    "isotropic noise": lambda problem, W0=None: stochastic_gradient_flow(
        problem, W0, duration=1.0, steps=3, noise="isotropic", sigma=0.1, seed=4
    ),
    "adam": lambda problem, W0=None: practical_descent(problem, W0, optimiser="adam", rate=0.1, steps=3, batch_size=2),
    "layer norm": lambda problem, W0=None: practical_descent(
        problem, W0, optimiser="momentum", rate=0.1, steps=3, layer_norm=True
    ),
}


@given(problems_with_start(), st.sampled_from(["particles", "embeddings", "auto"]), st.floats(0.0, 0.5))
def test_descent_is_a_loop_of_autograd_steps(drawn, space, rate):
    problem, W0 = drawn
    run = gradient_descent(problem, W0, rate=rate, steps=4, space=space)
    for t in range(5):
        expected = descend(W0, problem, [rate] * t)
        # few steps at moderate rates: sums in another order
        size = 1 + float(problem.E.abs().max() * problem.U.abs().max())
        assert float((run.W[t] - expected).abs().max()) < 1e-11 * size


@pytest.mark.parametrize("problem", [PROBLEM, BINARY], ids=["general", "binary"])
@pytest.mark.parametrize("space", ["particles", "embeddings"])
def test_a_schedule_is_followed_step_by_step(problem, space):
    W0 = torch.zeros(problem.d, problem.d, dtype=D)
    run = gradient_descent(problem, rate=lambda t: 1.0 / (1 + t), steps=6, space=space)
    assert float((run.W[-1] - descend(W0, problem, [1.0 / (1 + t) for t in range(6)])).abs().max()) < 1e-13
    rates = torch.tensor([0.1, 2.0], dtype=D)
    run = gradient_descent(problem, rate=lambda t: rates * 0.5**t, steps=6, space=space)
    assert run.W.shape == (7, 2, problem.d, problem.d)
    for k, rate in enumerate(rates.tolist()):
        expected = descend(W0, problem, [rate * 0.5**t for t in range(6)])
        assert float((run.W[-1, k] - expected).abs().max()) < 1e-13


@pytest.mark.parametrize("space", ["particles", "embeddings"])
def test_a_batch_of_rates_widens_the_state(space):
    grid = AssociationProblem.two_tokens(torch.tensor([-0.5, 0.0, 0.5], dtype=D), 0.75)
    rates = torch.tensor([[0.0], [1.0], [4.0]], dtype=D)
    run = gradient_descent(grid, rate=rates, steps=5, space=space)
    assert run.loss.shape == (6, 3, 3)
    for i, k in itertools.product(range(3), range(3)):
        single = AssociationProblem.two_tokens(float(grid.E[k, 0] @ grid.E[k, 1]), 0.75)
        alone = gradient_descent(single, rate=float(rates[i]), steps=5, space=space)
        assert float((run.margins[:, i, k] - alone.margins).abs().max()) < 1e-12


def test_recording_keeps_every_kth_state_and_the_last():
    full = gradient_descent(PROBLEM, rate=0.3, steps=7)
    assert full.times.tolist() == list(range(8))
    for every, kept in [(1, range(8)), (2, [0, 2, 4, 6, 7]), (3, [0, 3, 6, 7]), (7, [0, 7]), (100, [0, 7])]:
        run = gradient_descent(PROBLEM, rate=0.3, steps=7, record_every=every)
        assert run.times.tolist() == list(kept)
        assert torch.equal(run.C, full.C[list(kept)])


def test_a_rate_of_zero_moves_nothing():
    W0 = torch.randn(5, 5, dtype=D, generator=torch.Generator().manual_seed(0))
    for space in ("particles", "embeddings"):
        run = gradient_descent(PROBLEM, W0, rate=0.0, steps=3, space=space)
        assert torch.equal(run.W, W0.expand(4, 5, 5))


@pytest.mark.parametrize("name", DYNAMICS)
def test_the_same_call_gives_the_same_bits(name):
    W0 = torch.randn(3, 1, 5, 5, dtype=D, generator=torch.Generator().manual_seed(0))
    first, second = (DYNAMICS[name](PROBLEM, W0) for _ in range(2))
    assert torch.equal(first.W, second.W)
    assert torch.equal(first.particles, second.particles)
    assert torch.equal(first.times, second.times)


@pytest.mark.parametrize("name", DYNAMICS)
def test_inputs_are_left_as_they_were_and_parameters_are_welcome(name):
    W0 = torch.nn.Parameter(torch.randn(5, 5, dtype=D, generator=torch.Generator().manual_seed(0)))
    before = [W0.detach().clone(), PROBLEM.E.clone(), PROBLEM.U.clone(), PROBLEM.p.clone()]
    run = DYNAMICS[name](PROBLEM, W0)
    for old, new in zip(before, [W0.detach(), PROBLEM.E, PROBLEM.U, PROBLEM.p], strict=True):
        assert torch.equal(old, new)
    assert not run.W.requires_grad
    assert W0.grad is None
    if name != "flow":  # which records the times asked for
        assert torch.equal(run.W[0], W0.detach())


@pytest.mark.parametrize("name", DYNAMICS)
def test_single_precision_stays_single_and_close(name):
    run, narrow = DYNAMICS[name](PROBLEM), DYNAMICS[name](PROBLEM.to(torch.float32))
    assert narrow.W.dtype == narrow.loss.dtype == torch.float32
    if name not in ("mini-batch noise", "isotropic noise", "stochastic descent", "adam"):  # other draws
        assert float((narrow.W.double() - run.W).abs().max()) < 1e-5


@pytest.mark.parametrize("name", [name for name in DYNAMICS if name != "layer norm"])
def test_a_trajectory_reads_off_what_the_memory_functions_say(name):
    W0 = torch.randn(2, 1, 5, 5, dtype=D, generator=torch.Generator().manual_seed(0))
    problem = AssociationProblem(PROBLEM.E.expand(3, 4, 5), PROBLEM.U, PROBLEM.targets, PROBLEM.p)
    run = DYNAMICS[name](problem, W0)
    T = len(run.times)
    assert run.W.shape == (T, 2, 3, 5, 5)
    for reading, function, shape in [
        (run.particles, amem_core.scores, (4, 3)),
        (run.loss, amem_core.loss, ()),
        (run.margins, amem_core.margins, (4, 3)),
        (run.tightest_margin, amem_core.tightest_margin, (4,)),
    ]:
        assert reading.shape == (T, 2, 3, *shape)
        assert float((reading - function(run.W, problem)).abs().max()) < 1e-13
    assert torch.equal(run.zero_one_loss, amem_core.zero_one_loss(run.W, problem))
    assert torch.equal(run.accuracy, 1 - run.zero_one_loss)
    assert repr(run) == f"Trajectory({T} times from {run.times[0]:g} to {run.times[-1]:g}, N=4, M=3, d=5)"


def test_descent_converges_to_the_flow_with_order_one():
    problem, W0 = AssociationProblem.two_tokens(0.6, 0.7), torch.tensor([[0.5, -1.0], [0.3, 0.8]], dtype=D)
    exact = gradient_flow(problem, W0, times=torch.tensor([4.0])).W[-1]
    steps = np.array([128, 256, 512, 1024])
    errors = [
        float((gradient_descent(problem, W0, rate=4.0 / n, steps=int(n)).W[-1] - exact).abs().max()) for n in steps
    ]
    slope = np.polyfit(np.log(1 / steps), np.log(errors), 1)[0]
    assert abs(slope - 1) < 0.05


@pytest.mark.parametrize("rate", [1e6, 1e100, 1e300])
@pytest.mark.parametrize("problem", [PROBLEM, BINARY, AssociationProblem.gaussian(1, 2, 1, seed=0)])
def test_huge_rates_give_huge_numbers_but_none_that_is_not_finite(problem, rate):
    for space in ("particles", "embeddings"):
        run = gradient_descent(problem, rate=rate, steps=20, space=space)
        for reading in (run.W, run.particles, run.loss, run.margins, run.tightest_margin, run.zero_one_loss):
            assert torch.isfinite(reading).all()


def test_margins_of_a_million_stay_put():
    problem = AssociationProblem.orthonormal(3)
    for space in ("particles", "embeddings"):
        run = gradient_descent(problem, 1e6 * torch.eye(3, dtype=D), rate=1.0, steps=5, space=space)
        assert torch.equal(run.tightest_margin, torch.full((6, 3), 1e6, dtype=D))
        assert float(run.loss.max()) == 0.0  # exp(-1e6) is below the smallest double
        wrong = gradient_descent(problem, -1e6 * torch.eye(3, dtype=D), rate=3.0, steps=2, space=space)
        # the two wrong classes share the residual: the score moves by eta/3, theirs by minus half of it
        assert wrong.tightest_margin[:, 0].tolist() == [-1e6, -1e6 + 1.5, -1e6 + 3.0]


@pytest.mark.parametrize("space", ["particles", "embeddings"])
@pytest.mark.parametrize("N", [2, 3])
def test_a_state_that_leaves_the_range_is_an_error(space, N):
    eye = torch.eye(N, dtype=D)
    problem = AssociationProblem(1e160 * eye, eye, torch.arange(N), torch.full((N,), 1 / N, dtype=D))
    with pytest.raises(OverflowError, match=r"range of torch\.float64"):
        _ = gradient_descent(problem, rate=1.0, steps=1, space=space).particles
    with pytest.raises(OverflowError, match=r"range of torch\.float64"):
        _ = gradient_descent(problem, rate=1.0, steps=50, space=space).particles


def test_a_short_run_shows_no_bar(capfd):
    gradient_descent(PROBLEM, rate=1.0, steps=10, progress=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_every_dynamics_follows_the_device_of_its_problem():
    on_gpu = PROBLEM.to(device="cuda")
    for name, dynamics in DYNAMICS.items():
        run = dynamics(on_gpu)
        assert run.W.device.type == run.loss.device.type == "cuda", name
        assert float((run.W.cpu() - dynamics(PROBLEM).W).abs().max()) < 1e-12, name


GOOD = {"rate": 1.0, "steps": 2}


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("rate", {"rate": -1.0}),
        ("rate", {"rate": torch.nan}),
        ("rate", {"rate": torch.inf}),
        ("rate", {"rate": torch.tensor([1.0, -0.5])}),
        ("rate", {"rate": lambda t: 1.0 - t, "steps": 3}),
        ("rate", {"rate": lambda t: 1.0 if t == 0 else torch.ones(2)}),
        ("rate, problem and W0", {"rate": torch.ones(3), "W0": torch.zeros(2, 5, 5, dtype=D)}),
        ("steps", {"steps": 0}),
        ("steps", {"steps": -5}),
        ("record_every", {"record_every": 0}),
        ("space", {"space": "fourier"}),
        ("W0", {"W0": torch.zeros(5, 4, dtype=D)}),
        ("W0", {"W0": torch.zeros(4, 4, dtype=D)}),
        ("W0", {"W0": torch.zeros(5, 5)}),
        ("W0", {"W0": torch.full((5, 5), torch.nan, dtype=D)}),
    ],
)
def test_malformed_arguments_are_refused(argument, change):
    with refuses(argument):
        gradient_descent(PROBLEM, **{**GOOD, **change})


@pytest.mark.parametrize("name", DYNAMICS)
def test_every_dynamics_refuses_a_start_that_does_not_fit(name):
    with refuses("W0", r"\(4, 4\)", "dimension 5"):
        DYNAMICS[name](PROBLEM, torch.zeros(4, 4, dtype=D))
    with refuses("W0, problem", r"\(2,\), \(3,\)"):
        DYNAMICS[name](AssociationProblem.two_tokens(torch.zeros(3), 0.5), torch.zeros(2, 2, 2, dtype=D))


@pytest.mark.parametrize("shared", [False, True], ids=["own embeddings", "shared embeddings"])
def test_a_batch_larger_than_one_chunk_is_many_single_runs(shared, monkeypatch):
    # 16 numbers a member: chunks of three, the last one shorter
    monkeypatch.setattr("amem_core.dynamics.spaces.CHUNK", 48)
    generator = torch.Generator().manual_seed(3)
    E, U = (torch.randn(*(() if shared else (2, 4)), 4, 3, dtype=D, generator=generator) for _ in range(2))
    batch = AssociationProblem(E, U, torch.arange(4), torch.full((4,), 0.25, dtype=D))
    W0, rates = (
        torch.randn(2, 4, 3, 3, dtype=D, generator=generator),
        torch.linspace(0.1, 0.8, 8, dtype=D).reshape(2, 4),
    )
    run = gradient_descent(batch, W0, rate=rates, steps=5, space="particles")
    every = gradient_descent(batch, W0, rate=rates, steps=5, record_every=5, space="particles")
    for at in itertools.product(range(2), range(4)):
        single = AssociationProblem(E if shared else E[at], U if shared else U[at], batch.targets, batch.p)
        alone = descend(W0[at], single, [float(rates[at])] * 5)
        assert float((run.W[-1][at] - alone).abs().max()) < 1e-12  # five steps of numbers of order 1
    assert torch.equal(run.W[-1], every.W[-1])  # taken one by one or all at once
