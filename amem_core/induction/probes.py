r"""Three associative memories inside the transformer: what they would be, and how much of them is there.

Letters: ``N`` tokens, ``T`` positions, ``d`` dimension, ``M`` associations of a memory. An induction head is

.. math::
    W_K^1 = \sum_{t \ge 1} p_t p_{t-1}^\top, \qquad
    W_K^2 = \sum_k e_k (W_O^1 W_V^1 e_k)^\top, \qquad
    W_O^2 = \sum_k u_k (W_V^2 e_k)^\top:

a position looks at the one before it, a token at the place behind its last occurrence, and what is read there is said.
Keys stand on the right, as scores are :math:`\langle h_t, W_K h_j\rangle`. A memory is cued with one half of an
association and scores all candidates for the other half: queries choose among keys, read tokens among said ones.
The margin is the score of the right candidate minus that of the best other one (without the :math:`1/\sqrt d` of
attention); the association is recalled when its margin is positive, so that a matrix of zeros recalls nothing.

Memories: Section 5.3 of [CSB24]; probes: [BCBJB23], Section 4.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amem_core.induction.model import TRAINED, Weights
from amem_core.validation import require, require_count

FIRST = 64  # positions of the shorter probe of W_K1


def ideal_memories(
    weights: Weights, triggers: Int64[Tensor, " K"] | None = None, names: tuple[str, ...] = TRAINED
) -> dict[str, Float[Tensor, "d d"]]:
    """The memories as sums of outer products, (d, d) by name.

    Parameters
    ----------
    triggers : (K,) the tokens that ``W_K2`` holds; ``None`` for all tokens
    names : the memories that are wanted

    Raises
    ------
    ValueError
        For unknown names, or triggers that are no different tokens.

    Examples
    --------
    >>> weights = Weights.draw(N=20, T=30, d=512, seed=0, scheme="unit")
    >>> recall(weights, "W_K1") < 0.2, recall(weights.replace(**ideal_memories(weights)), "W_K1")
    (True, 1.0)
    """
    known = isinstance(names, tuple) and set(names) <= set(TRAINED)
    require(known, "names", repr(names), f"a tuple of names from {TRAINED}")
    held = _require_triggers(weights, triggers, 1)
    found = {}
    for name in names:
        left, right = _halves(weights, name, held)
        left, right = (left[1:], right[:-1]) if name == "W_K1" else (left, right)
        found[name] = left.T @ right
    return found


def margins(
    weights: Weights,
    name: str,
    *,
    triggers: Int64[Tensor, " K"] | None = None,
    first: int | None = None,
    causal: bool = False,
) -> Float[Tensor, " M"]:
    """Margin of every association of one memory, (M,).

    Parameters
    ----------
    name : ``"W_K1"`` (positions 1 to T - 1 as cues), ``"W_K2"`` or ``"W_O2"`` (tokens)
    triggers : (K,) tokens that are cues and candidates of ``W_K2`` and ``W_O2``; ``None`` for all of them
    first : only so many positions, at most T, are cues and candidates of ``W_K1``; ``None`` for all of them
    causal : position t chooses among the positions up to t, as in the model, not among all

    Raises
    ------
    ValueError
        For an unknown name, options of the other kind of memory, fewer than two candidates.

    Examples
    --------
    >>> weights = Weights.draw(N=20, T=30, d=16, seed=0, zero=("W_O2",))
    >>> margins(weights, "W_O2", triggers=torch.tensor([3, 5])).tolist()
    [0.0, 0.0]
    """
    require(name in TRAINED, "name", repr(name), f"one of {TRAINED}")
    require(isinstance(causal, bool), "causal", repr(causal), "True or False")
    if name == "W_K1":
        require(triggers is None, "triggers", "a tensor", "None for W_K1, whose candidates are positions")
        size = weights.T if first is None else require_count("first", first, 2)
        require(2 <= size <= weights.T, "first", first, f"None or 2 to T = {weights.T}, with T >= 2")
        left, right = (X[:size] for X in _halves(weights, name, None))
    else:
        require(first is None, "first", first, f"None for {name}, whose candidates are tokens")
        require(not causal, "causal", causal, f"False for {name}, whose candidates are tokens")
        left, right = _halves(weights, name, _require_triggers(weights, triggers, 2))
    scores = left @ getattr(weights, name) @ right.T
    if name == "W_O2":
        scores = scores.T  # cued from the right
    right_one = torch.arange(len(scores), device=scores.device)
    if name == "W_K1":
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        scores, right_one = scores[1:], right_one[:-1]
    own = scores.gather(1, right_one[:, None])
    return (own - scores.scatter(1, right_one[:, None], -torch.inf).amax(1, keepdim=True))[:, 0]


def recall(weights: Weights, name: str, **options: object) -> float:
    """Recall probe R: the fraction of associations with a positive margin; options and errors as in ``margins``.

    >>> recall(Weights.draw(N=20, T=30, d=16, seed=0, zero=("W_O2",)), "W_O2")
    0.0
    """
    return float((margins(weights, name, **options) > 0).double().mean())


def recall_probes(weights: Weights, triggers: Int64[Tensor, " K"] | None = None) -> dict[str, float]:
    """All recall probes by name.

    ``W_O2`` and ``W_K2`` are over all tokens, and with ``triggers`` also over these alone: a choice among K, which
    chance gets right once in K. ``W_K1`` is over all positions and over the first 64, causal and not.

    >>> found = recall_probes(Weights.draw(N=20, T=70, d=16, seed=0), torch.tensor([0, 1]))
    >>> list(found)
    ['W_O2', 'W_K2', 'W_K2 triggers', 'W_K1', 'W_K1 causal', 'W_K1 first 64', 'W_K1 causal first 64']
    """
    found = {name: recall(weights, name) for name in ("W_O2", "W_K2")}
    if triggers is not None:
        found["W_K2 triggers"] = recall(weights, "W_K2", triggers=triggers)
    for end, first in (("", None), (f" first {FIRST}", min(FIRST, weights.T))):
        for kind, causal in (("", False), (" causal", True)):
            found[f"W_K1{kind}{end}"] = recall(weights, "W_K1", first=first, causal=causal)
    return found


def _halves(weights: Weights, name: str, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """What stands left and right in the outer products, (M, d) each; for ``W_K1`` all positions, not yet shifted."""
    if name == "W_K1":
        return weights.p, weights.p
    here = slice(None) if tokens is None else tokens
    e = weights.W_E[here]
    return (e, e @ weights.W_V1.T @ weights.W_O1.T) if name == "W_K2" else (weights.W_U[here], e @ weights.W_V2.T)


def _require_triggers(weights: Weights, triggers: object, least: int) -> Tensor | None:
    """At least so many different tokens, or ``None`` for all, on the device of the weights."""
    if triggers is None:
        require(weights.N >= least, "weights", f"N = {weights.N}", f"N >= {least}")
        return None
    whole = isinstance(triggers, Tensor) and triggers.dtype == torch.int64 and triggers.ndim == 1
    kind = type(triggers).__name__ if not isinstance(triggers, Tensor) else f"{triggers.dtype} {tuple(triggers.shape)}"
    require(whole and len(triggers) >= least, "triggers", kind, f"a torch.int64 tensor (K,) with K >= {least}")
    known = bool(((triggers >= 0) & (triggers < weights.N)).all()) and len(triggers.unique()) == len(triggers)
    require(known, "triggers", triggers.tolist(), f"different tokens from 0 to N-1 = {weights.N - 1}")
    return triggers.to(weights.W_E.device)
