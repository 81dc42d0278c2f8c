"""Descent in the plane as a page shows it: the numbers that an explorer's own step must equal."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from amem_core.dynamics import gradient_descent
from amem_core.landscape.minimum import minimise_loss
from amem_core.landscape.zero_one import minimise_zero_one
from amem_core.memory import tightest_margin
from amem_core.problem import AssociationProblem
from amem_core.validation import require


def planar_frame(
    angles: Sequence[float],
    targets: Sequence[int],
    p: Sequence[float],
    rate: float,
    steps: int,
    start: Sequence[float],
    kappa: float = 2.0,
    minimisers: bool = False,
) -> dict[str, Any]:
    """What the planar step computes in the page, by ``amem_core``: trajectory of ``W^T(u_1 - u_2)``,
    loss, accuracy and margins at steps ``0 .. steps``; with ``minimisers`` what each loss forgets at its
    best (``optimum``; tokens from 1, ``v`` is ``None`` where the loss has no minimiser). ``p`` is normalised.

    >>> frame = planar_frame([0.0], [0], [1.0], 1.0, 1, [0.0, 0.0])
    >>> frame["trajectory"], frame["margins"]
    ([[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0]])
    """
    frequencies = torch.tensor(p, dtype=torch.float64)
    require(bool((frequencies >= 0).all()) and float(frequencies.sum()) > 0, "p", list(p), "non-negative, not all 0")
    directions = torch.tensor(angles, dtype=torch.float64)
    unit = AssociationProblem.planar(directions, torch.tensor(targets), frequencies / frequencies.sum())
    problem = replace(unit, U=(kappa / 2) ** 0.5 * unit.U)  # |u_1 - u_2|^2 = kappa
    gap = problem.U[0] - problem.U[1]
    W0 = gap[:, None] * torch.tensor(start, dtype=torch.float64) / kappa  # in the span of the gradients, v = start
    run = gradient_descent(problem, W0, rate=float(rate), steps=steps, space="embeddings")
    frame = {
        "trajectory": (run.W.mT @ gap).tolist(),
        "loss": run.loss.tolist(),
        "accuracy": run.accuracy.tolist(),
        "margins": run.tightest_margin.mT.tolist(),
    }
    return frame | {"optimum": _optimum(problem)} if minimisers else frame


def _optimum(problem: AssociationProblem) -> dict[str, Any]:
    low, best, number = minimise_loss(problem), minimise_zero_one(problem), torch.arange(1, problem.N + 1)
    frame = {"given_up": number[~best.recalled].tolist(), "least": best.zero_one_loss.item()}
    if not low.attained:
        return frame | {"v": None, "forgotten": None, "zero_one": None}
    lost = tightest_margin(low.W, problem) <= 1e-12 * low.v.norm()  # ties, up to rounding
    return frame | {"v": low.v.tolist(), "forgotten": number[lost].tolist(), "zero_one": low.zero_one_loss.item()}
