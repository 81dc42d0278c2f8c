"""Steps of descent until tokens are recalled, for a batch of problems of any size at several rates."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amem_core.dynamics import gradient_descent
from amem_core.problem import AssociationProblem
from amem_core.validation import require, require_count, require_floating


def recall_times(
    problem: AssociationProblem, rates: Float[Tensor, " R"], *, steps: int, block: int = 50
) -> tuple[Int[Tensor, "R *batch"], Int[Tensor, "R *batch N"]]:
    """First steps of gradient descent from ``W_0 = 0`` at which all tokens, and each token, are recalled.

    They may be lost again later. Descent goes on, block by block, until every member has been perfect once at every
    rate. For two tokens on fine grids ``hitting_times`` is faster.

    Parameters
    ----------
    problem : with any batch
    rates : (R,) learning rates
    steps : how many, at most
    block : steps that are recorded together

    Returns
    -------
    all_tokens, each_token : (R, ...) and (R, ..., N); ``steps + 1`` for later

    Raises
    ------
    ValueError
        For bad rates, and ``steps`` or ``block`` below 1.

    Examples
    --------
    >>> problem = AssociationProblem.two_tokens(0.9, 0.75)
    >>> done, first = recall_times(problem, torch.tensor([1.0, 10.0], dtype=torch.float64), steps=100)
    >>> done.tolist(), first.tolist()  # the frequent token at once
    ([26, 2], [[1, 26], [1, 2]])
    """
    require_floating("rates", rates)
    require(rates.ndim == 1 and len(rates) > 0, "rates", tuple(rates.shape), "(R,)")
    require_count("steps", steps)
    require_count("block", block)
    rate = rates.reshape(-1, *[1] * len(problem.batch_shape))
    like = {"dtype": problem.dtype, "device": problem.device}
    W = torch.zeros(len(rates), *problem.batch_shape, problem.d, problem.d, **like)
    each = torch.full((*W.shape[:-2], problem.N), steps + 1, device=problem.device)
    done = each[..., 0].clone()
    for begin in range(0, steps, block):
        run = gradient_descent(problem, W, rate=rate, steps=min(block, steps - begin), progress=False)
        right, W = run.tightest_margin > 0, run.W[-1]
        at = begin + torch.arange(len(right), device=problem.device)
        for hit, times in ((right.all(-1), done), (right, each)):
            when = torch.where(hit, at.reshape(-1, *[1] * (hit.ndim - 1)), steps + 1).amin(0)
            times.copy_(torch.minimum(times, when))
        if bool((done <= steps).all()):
            break
    return done, each
