"""Gradient descent and stochastic gradient descent, Eqs. (5) and (7) of [CSB24]."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from amem_core.dynamics.loop import check_run, drawn_frequencies, iterate, start
from amem_core.dynamics.spaces import open_space
from amem_core.dynamics.trajectory import Trajectory
from amem_core.problem import AssociationProblem, Seed
from amem_core.validation import make_generator, require, require_broadcast, require_count, require_rate

Rate = float | Tensor | Callable[[int], float | Tensor]


def gradient_descent(
    problem: AssociationProblem,
    W0: Tensor | None = None,
    *,
    rate: Rate,
    steps: int,
    record_every: int = 1,
    space: str = "auto",
    progress: bool = True,
) -> Trajectory:
    r"""Gradient descent :math:`W_{t+1} = W_t - \eta_t \nabla\mathcal L(W_t)`, Eq. (5) of [CSB24].

    Parameters
    ----------
    problem : the associations, with any batch shape
    W0 : (..., d, d) start; zero by default
    rate : learning rate :math:`\eta_t \ge 0`: a number, a tensor of the batch shape, or a
        function of the step ``t = 0, 1, ...`` that returns either
    steps : number of steps
    record_every : the states at ``0, k, 2k, ...`` and the last one are recorded
    space : ``"auto"`` (fewer operations), ``"particles"`` or ``"embeddings"``
    progress : show a bar when the run lasts more than a few seconds

    Raises
    ------
    ValueError
        For a negative or non-finite rate, no steps, an unknown space, a start that does not fit.
    OverflowError
        If the state leaves the range of its floating-point type.

    Examples
    --------
    >>> run = gradient_descent(AssociationProblem.orthonormal(2), rate=1.0, steps=3)
    >>> run.tightest_margin[1].tolist()  # eta p |e|^2 (u_1 - u_2)^T u_1 = 1/2
    [0.5, 0.5]
    """
    W0 = start(problem, W0)
    check_run(steps, record_every)
    schedule, wide = _schedule(rate, problem, W0)
    state = open_space(problem, wide, space)
    if callable(rate):
        return iterate(problem, W0, state, lambda t: state.advance(schedule(t)), steps, record_every, progress)
    return iterate(
        problem, W0, state, partial(state.advance, schedule(0)), steps, record_every, progress, constant=True
    )


def stochastic_gradient_descent(
    problem: AssociationProblem,
    W0: Tensor | None = None,
    *,
    rate: Rate,
    steps: int,
    batch_size: int,
    seed: Seed,
    reduction: str = "mean",
    record_every: int = 1,
    space: str = "auto",
    progress: bool = True,
) -> Trajectory:
    r"""Stochastic gradient descent, Eq. (7) of [CSB24], on mini-batches drawn with replacement from ``p``.

    ``reduction="mean"`` divides the sum over the batch by its size, so that the update is an
    unbiased estimate of the gradient; ``"sum"`` is the formula as printed under Eq. (7), whose
    mean is ``batch_size`` times the gradient. Every member of a batch of problems draws its own
    samples. Other parameters and errors: ``gradient_descent``.

    >>> problem = AssociationProblem.orthonormal(3)
    >>> run = stochastic_gradient_descent(problem, rate=1.0, steps=5, batch_size=1, seed=0)
    >>> (run.tightest_margin[-1] >= 0).all().item()
    True
    """
    W0 = start(problem, W0)
    check_run(steps, record_every)
    require_count("batch_size", batch_size)
    require(reduction in ("mean", "sum"), "reduction", repr(reduction), "'mean' or 'sum'")
    generator = make_generator(seed)
    schedule, wide = _schedule(rate, problem, W0)
    state = open_space(problem, wide, space)
    scale = batch_size if reduction == "sum" else 1

    def advance(t: int) -> None:
        frequencies = drawn_frequencies(problem, wide.shape[:-2], batch_size, generator)
        state.advance(schedule(t, frequencies) * scale)

    return iterate(problem, W0, state, advance, steps, record_every, progress)


def _schedule(rate: Rate, problem: AssociationProblem, W0: Tensor) -> tuple[Callable, Tensor]:
    """Token weights ``rate_t * frequencies`` of step ``t``, and the start in the batch shape of both."""

    def valid(t: int) -> Tensor:
        eta = require_rate(rate(t) if callable(rate) else rate, W0)
        require_broadcast({"rate": eta.shape, "problem and W0": W0.shape[:-2]})
        return eta[..., None]

    first = valid(0)
    batch = require_broadcast({"rate": first.shape[:-1], "W0": W0.shape[:-2]})
    wide = W0.expand(*batch, *W0.shape[-2:])

    def token_weights(t: int, frequencies: Tensor | None = None) -> Tensor:
        eta = valid(t) if callable(rate) else first
        grown = require_broadcast({"rate": eta.shape[:-1], "the run": batch})
        require(
            grown == batch,
            "rate",
            f"shape {tuple(eta.shape[:-1])} at step {t}",
            f"at most {tuple(batch)}, as at step 0",
        )
        return eta * (problem.p if frequencies is None else frequencies)

    return token_weights, wide
