"""Practical descent, Section 2 of [CSB24]: momentum, Adam and layer normalisation through torch."""

import torch
from torch import Tensor

from amem_core.dynamics.loop import check_run, drawn_frequencies, iterate, start
from amem_core.dynamics.trajectory import Trajectory
from amem_core.memory import gradient_of, mean_loss, residuals, scores_of
from amem_core.problem import AssociationProblem, Seed
from amem_core.validation import make_generator, require, require_count, require_positive

OPTIMISERS = {
    "sgd": lambda W, rate: torch.optim.SGD([W], lr=rate),
    "momentum": lambda W, rate: torch.optim.SGD([W], lr=rate, momentum=0.9),
    "nesterov": lambda W, rate: torch.optim.SGD([W], lr=rate, momentum=0.9, nesterov=True),
    "adam": lambda W, rate: torch.optim.Adam([W], lr=rate),
    "adamw": lambda W, rate: torch.optim.AdamW([W], lr=rate),
}


def practical_descent(
    problem: AssociationProblem,
    W0: Tensor | None = None,
    *,
    optimiser: str,
    rate: float,
    steps: int,
    batch_size: int | None = None,
    seed: Seed = 0,
    layer_norm: bool = False,
    record_every: int = 1,
    progress: bool = True,
) -> Trajectory:
    """Descent as practitioners run it, Section 2 of [CSB24], with the optimisers of ``torch.optim``.

    Parameters
    ----------
    problem, W0 : the associations and the start (zero by default), any batch shape
    optimiser : ``"sgd"``, ``"momentum"`` (0.9), ``"nesterov"`` (0.9), ``"adam"`` or ``"adamw"``
        (torch's default constants)
    rate : learning rate, at least 0
    batch_size : size of the mini-batches drawn from ``p``; ``None`` uses the whole distribution
    seed : of the mini-batches
    layer_norm : read the scores as ``u_j^T LN(W e_x)``, with torch's layer normalisation
        (epsilon 1e-5, no learned scale), gradient by autograd; otherwise the closed form

    Raises
    ------
    ValueError
        For an unknown optimiser and for numbers out of range.
    OverflowError
        If the state leaves the range of its floating-point type.

    Examples
    --------
    >>> problem = AssociationProblem.orthonormal(3)
    >>> practical_descent(problem, optimiser="adam", rate=0.1, steps=5).accuracy[-1].item()
    1.0
    """
    W0 = start(problem, W0)
    require(optimiser in OPTIMISERS, "optimiser", repr(optimiser), ", ".join(OPTIMISERS))
    require_positive("rate", rate, zero=True)
    check_run(steps, record_every)
    if batch_size is not None:
        require_count("batch_size", batch_size)
    generator = make_generator(seed)
    state = _Parameter(W0)
    engine = OPTIMISERS[optimiser](state.W, rate)

    def advance(t: int) -> None:
        q = problem.p if batch_size is None else drawn_frequencies(problem, W0.shape[:-2], batch_size, generator)
        state.W.grad = _gradient(state.W, problem, q, layer_norm)
        engine.step()

    return iterate(problem, W0, state, advance, steps, record_every, progress, normalised=layer_norm)


class _Parameter:
    stores = "weights"

    def __init__(self, W0: Tensor) -> None:
        self.W = torch.nn.Parameter(W0.clone())

    def snapshot(self) -> Tensor:
        return self.W.detach()


def _gradient(parameter: Tensor, problem: AssociationProblem, q: Tensor, layer_norm: bool) -> Tensor:
    E, U = problem.E, problem.U
    if not layer_norm:
        R = residuals(scores_of(parameter.detach(), E, U), problem.targets)
        return gradient_of(R * q[..., None], E, U)
    normalised = torch.nn.functional.layer_norm(E @ parameter.mT, (problem.d,)) @ U.mT
    total = mean_loss(normalised, problem.targets, q).sum()
    return torch.autograd.grad(total, parameter)[0]
