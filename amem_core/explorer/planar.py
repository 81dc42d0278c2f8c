"""Explorers of the plane: two classes, two dimensions, up to 100 tokens, all of it under the hand."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch

from amem_core.dynamics import gradient_descent
from amem_core.explorer.widget import Explorer
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
) -> dict[str, Any]:
    """What the planar step computes in the page, by ``amem_core``: trajectory of ``W^T(u_1 - u_2)``,
    loss, accuracy and margins at steps ``0 .. steps``. ``p`` is normalised.

    >>> frame = planar_frame([0.0], [0], [1.0], 1.0, 1, [0.0, 0.0])
    >>> frame["trajectory"], frame["margins"]
    ([[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0]])
    """
    frequencies = torch.tensor(p, dtype=torch.float64)
    require(bool((frequencies >= 0).all()) and float(frequencies.sum()) > 0, "p", list(p), "non-negative, not all 0")
    scale = (kappa / 2) ** 0.5  # u_1, u_2 = scale times the canonical basis
    directions = torch.tensor(angles, dtype=torch.float64)
    unit = AssociationProblem.planar(directions, torch.tensor(targets), frequencies / frequencies.sum())
    problem = AssociationProblem(unit.E, scale * unit.U, unit.targets, unit.p)
    # (u_1 - u_2)^T W = start with W in the span of the gradients
    v0 = torch.tensor(start, dtype=torch.float64)
    W0 = (problem.U[0] - problem.U[1])[:, None] * v0 / kappa
    run = gradient_descent(problem, W0, rate=float(rate), steps=steps, space="embeddings")
    trajectory = run.W.mT @ (problem.U[0] - problem.U[1])
    return {
        "trajectory": trajectory.tolist(),
        "loss": run.loss.tolist(),
        "accuracy": run.accuracy.tolist(),
        "margins": run.tightest_margin.mT.tolist(),
    }


def planar_explorer(name: str, **given: Any) -> Explorer:
    """An explorer whose start, embeddings and frequencies can be dragged, in the page as in a notebook.

    ``given`` are the arguments of ``planar_frame`` (``start`` is the origin by default) and the ``title``,
    ``still``, ``alt``, ``parameters``, ``views`` and ``presets`` of ``Explorer``. Parameters may be named
    ``rate``, ``steps``, and for two tokens ``alpha`` (correlation of the inputs) and ``p1``; presets may
    set these and whatever ``planar_frame`` takes.
    """
    state = {"start": [0.0, 0.0], "kappa": 2.0}
    state |= {key: given.pop(key) for key in signature(planar_frame).parameters if key in given}
    require(len(state["angles"]) <= 100, "angles", f"{len(state['angles'])} tokens", "at most 100")
    return Explorer(name, simulate=planar_frame, steps=state["steps"], planar=state, **given)
