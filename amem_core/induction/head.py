r"""An induction head written by hand, and how much of it the interference of random embeddings leaves.

Letters: ``N`` tokens, ``T`` positions, ``d`` dimension, ``K`` triggers, ``B`` sequences. The three memories are those
of :mod:`amem_core.induction.probes`, each times a number that is given by its *gap*: how much higher the score of the
right candidate is than that of any other, were all embeddings orthogonal (in layers 1 and 2 after the division by
:math:`\sqrt d`).

Memories: Section 5.3 and Appendix D of [CSB24]; the slides [Bietti24] have the first two transposed. The recall probes
of these sources cue every memory from the right, so that keys choose among queries; those of
:mod:`amem_core.induction.probes` let queries choose among keys, as attention does.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.induction.model import SimplifiedTransformer, Weights
from amem_core.induction.probes import ideal_memories
from amem_core.induction.task import Sequences
from amem_core.validation import require, require_count, require_positive

LOGIT_GAP = 100.0  # drowns what the residual stream adds to the logits: of deviation below 1 in both schemes


def orthonormal_weights(N: int, T: int, dtype: torch.dtype = torch.float64) -> Weights:
    r"""Weights without interference, of dimension ``3N + 2T``; the three memories are zero.

    The ``e_k``, ``p_t``, ``W_O1 W_V1 e_k``, ``W_O1 W_V1 p_t`` and ``u_k`` are different vectors of the standard basis;
    ``W_O1`` and ``W_V2`` are the identity, and scores are not divided by :math:`\sqrt d`.

    >>> weights = orthonormal_weights(N=3, T=4)
    >>> weights.d, (weights.W_E @ weights.W_V1.T @ weights.p.T).any().item()
    (17, False)
    """
    n = require_count("N", N) + require_count("T", T)
    d = 3 * N + 2 * T
    eye, zero = torch.eye(d, dtype=dtype), torch.zeros(d, d, dtype=dtype)
    remap = zero.clone()
    remap[n : 2 * n, :n] = torch.eye(n, dtype=dtype)
    memories = dict.fromkeys(("W_K1", "W_K2", "W_O2"), zero)
    return Weights(eye[:N], eye[N:n], remap, eye, eye, eye[2 * n :], **memories, scaled=False)


def hand_made_head(
    weights: Weights,
    gaps: Sequence[float],
    *,
    triggers: Tensor | None = None,
    transposed: bool = False,
    skip_first: bool = True,
) -> Weights:
    r"""These weights with the three memories written as sums of outer products.

    Parameters
    ----------
    gaps : of ``W_K1``, ``W_K2`` and ``W_O2``, each at least 0
    triggers : (K,) tokens that ``W_K2`` holds; ``None`` for all tokens
    transposed : ``W_K1`` and ``W_K2`` as on the slides, with keys and queries exchanged
    skip_first : one more association in ``W_K2``, :math:`-\sum_k e_k p_1^\top`: no query wants the first position,
        which has no position before it and reads itself

    Raises
    ------
    ValueError
        For other gaps, triggers that are no different tokens, or ``skip_first`` together with ``transposed``.

    Examples
    --------
    The sequence ``2 0 1 0``, with trigger 0: the head says 1.

    >>> head = hand_made_head(orthonormal_weights(N=3, T=4), (9, 9, 9), triggers=torch.tensor([0]))
    >>> SimplifiedTransformer(head)(torch.tensor([[2, 0, 1, 0]]))[0, -1].argmax().item()
    1
    """
    gaps = _require_gaps(gaps)
    for name, value in (("transposed", transposed), ("skip_first", skip_first)):
        require(isinstance(value, bool), name, repr(value), "True or False")
    require(not (transposed and skip_first), "skip_first", True, "False for transposed memories")
    W = weights
    K1, K2 = ideal_memories(W, triggers, ("W_K1", "W_K2")).values()
    e = W.W_E if triggers is None else W.W_E[triggers]
    lengths = (X.square().sum(-1).mean() for X in (e, e @ W.W_V1.T @ W.W_O1.T, W.p, W.W_U, W.W_E @ W.W_V2.T))
    token, read, position, said, value = lengths
    K1, K2 = gaps[0] / (W.beta * position**2) * K1, gaps[1] / (W.beta * token * read) * K2
    if skip_first:
        K2 = K2 - gaps[1] / (W.beta * token * W.p[0].square().sum()) * torch.outer(e.sum(0), W.p[0])
    O2 = gaps[2] / (said * value) * ideal_memories(W, names=("W_O2",))["W_O2"]
    return W.replace(W_K1=K1.T if transposed else K1, W_K2=K2.T if transposed else K2, W_O2=O2)


def logit_margins(weights: Weights, sequences: Sequences, *, chunk: int = 16) -> Float[Tensor, "B T"]:
    """Logit of the right next token minus the best other one, at every position, (B, T).

    A position is predicted right when it is positive: a tie is an error, unlike in ``loss_and_gradients``.

    >>> from amem_core.induction import BigramTask
    >>> batch = BigramTask.shakespeare(length=20).sample(2, torch.Generator().manual_seed(0))
    >>> head = hand_made_head(orthonormal_weights(63, 20), (20, 20, 20))
    >>> (logit_margins(head, batch) > 0)[batch.counts].all().item()
    True
    """
    require_count("chunk", chunk)
    model, found = SimplifiedTransformer(weights), []
    with torch.no_grad():
        for z, target in zip(sequences.inputs.split(chunk), sequences.targets.split(chunk), strict=True):
            logits, target = model(z), target[..., None]
            own = logits.gather(-1, target)[..., 0]
            found.append(own - logits.scatter(-1, target, -torch.inf).amax(-1))
    return torch.cat(found)


# ---- interference ----


def spectral_factors(weights: Weights) -> tuple[float, float, float]:
    r"""What the frozen matrices do to lengths and to inner products.

    With :math:`G = W_O^1W_V^1` and :math:`\tau = \mathrm{tr}(\cdot)/d`: :math:`r = \tau(G^\top G)`, the shrinking of
    squared lengths, and for both maps how much larger than :math:`1/d` the variance of the inner product of two
    remapped unit vectors is, in units of squared lengths: :math:`c = \tau((G^\top G)^2)/r^2`, and ``v`` of ``W_V2``.

    >>> weights = Weights.draw(10, 10, 400, seed=0, dtype=torch.float64)  # limits: 1/9, 3, 2
    >>> [round(x, 2) for x in spectral_factors(weights)]
    [0.11, 2.99, 2.0]
    """
    found = []
    for M in (weights.W_O1 @ weights.W_V1, weights.W_V2):
        shrinking = float(M.square().sum()) / weights.d
        found.append((shrinking, float((M.T @ M).square().sum()) / weights.d / shrinking**2))
    (r, c), (_, v) = found
    return r, c, v


def score_variances(
    weights: Weights, K: int, length: int | None = None, *, behind: float = 1.0
) -> tuple[float, float, float]:
    r"""Variances of the noise in the scores of wrong candidates, in units of the mean score of the right ones.

    For independent normal embeddings, sharp attention, and a memory ``W_K2`` of ``K`` tokens that skips the first
    position, with ``K`` small against ``d``:

    .. math::
        \sigma_1^2 = \frac4d + \frac{4T}{d^2}, \qquad
        \sigma_2^2 = \kappa + \chi\Big(\rho + \frac2d\Big) + (K-1)\kappa\rho, \qquad
        \sigma_3^2 = \nu + \frac1d + \frac{N\nu}{d},

    with :math:`\rho = (2 + 2r)/d`, :math:`\kappa = (2/r + 2c + 2 + 2r)/d`, :math:`\nu = (2 + 2r)v/d` and the factors of
    ``spectral_factors``. At a place behind another token k of the memory the product of e_k with the present token's
    embedding enters twice, through the query and, remapped, through the key; hence the 2/d. The right candidates vary
    more, in layer 1 with :math:`6/d + 4T/d^2`. Their mean score in layer 2 is :math:`1 + (K-1)/d` times the gap, as
    the patterns of the memory are not orthogonal.

    Parameters
    ----------
    K : number of tokens that ``W_K2`` holds
    length : T, if it is not that of the weights
    behind : :math:`\chi`, share of the wrong places that stand behind another one of these tokens; 1, the most

    Raises
    ------
    ValueError
        For a ``K`` or length below 1, or a share that is none.

    Examples
    --------
    >>> weights = Weights.draw(63, 256, 128, seed=0)
    >>> [round(x, 2) for x in score_variances(weights, K=5)]
    [0.09, 0.25, 0.06]
    """
    require_count("K", K)
    behind = require_positive("behind", behind, zero=True)
    require(behind <= 1, "behind", behind, "0 to 1")
    T = weights.T if length is None else require_count("length", length)
    d, N = weights.d, weights.N
    r, c, v = spectral_factors(weights)
    query, key, said = (2 + 2 * r) / d, (2 / r + 2 * c + 2 + 2 * r) / d, (2 + 2 * r) * v / d
    second = key + behind * (query + 2 / d) + (K - 1) * key * query
    return 4 / d + 4 * T / d**2, second, said + 1 / d + N * said / d


def natural_gaps(weights: Weights, K: int, length: int | None = None) -> tuple[float, float, float]:
    """One over the variance of the noise: a rule of thumb for how sharp attention should be.

    Were the noises of different places independent, of one variance, and one place right, attention with this gap
    would be the posterior of the place that is looked for. The gap of ``W_O2`` matters only against what the residual
    stream adds to the logits, and is ``LOGIT_GAP``.

    >>> weights = Weights.draw(63, 256, 128, seed=0)
    >>> [round(x, 1) for x in natural_gaps(weights, K=5)]
    [10.7, 4.0, 100.0]
    """
    first, second, _ = score_variances(weights, K, length)
    return 1 / first, 1 / second, LOGIT_GAP


def predicted_accuracy(
    weights: Weights, sequences: Sequences, gaps: Sequence[float], generator: torch.Generator
) -> float:
    """Accuracy of the head on positions that count, as the calculus of interference has it: one random estimate.

    No embedding is used: every length and every inner product of two embeddings is replaced by an independent normal
    number of the right mean and variance, and attention is computed from these. ``W_K2`` holds the triggers of each
    sequence, few against ``d``, and skips the first position. The numbers are drawn anew for every sequence; the
    estimate has an error of its own, which falls with their number.

    Parameters
    ----------
    weights : give ``d`` and the ``spectral_factors``
    gaps : of ``W_K1`` and ``W_K2``; that of ``W_O2`` is taken to be large

    Examples
    --------
    >>> from amem_core.induction import BigramTask
    >>> chance = torch.Generator().manual_seed(0)
    >>> batch = BigramTask.shakespeare(length=32).sample(8, chance)
    >>> wide = Weights.draw(63, 32, 1024, seed=0)
    >>> predicted_accuracy(wide, batch, natural_gaps(wide, 5), chance) > 0.95
    True
    """
    gaps, factors, hits = _require_gaps(gaps), spectral_factors(weights), 0
    parts = (sequences.inputs, sequences.targets, sequences.triggers, sequences.counts)
    for z, target, held, counts in zip(*parts, strict=True):
        said, target = _twin(z, held, counts, weights, factors, gaps, generator), target[counts, None]
        margin = said.gather(1, target) - said.scatter(1, target, -torch.inf).amax(1, keepdim=True)
        hits += int((margin > 0).sum())
    return hits / max(int(sequences.counts.sum()), 1)


def _twin(
    z: Tensor, held: Tensor, rows: Tensor, weights: Weights, factors: tuple, gaps: tuple, generator: torch.Generator
) -> Tensor:
    """What the head says at these positions of one sequence, (rows, N); lengths are squared, over their means."""
    (r, c, v), N, d, T, K = factors, weights.N, weights.d, len(z), len(held)
    more = max(c - 1, 0.0)  # noise that the remapping adds to an inner product

    def noise(variance: float, *shape: int) -> Tensor:
        return math.sqrt(variance) * torch.randn(*shape, generator=generator).double()  # single: five times as fast

    is_token = torch.nn.functional.one_hot(z, N).double()
    future = torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)

    length = 1 + noise(2 / d, T)
    shared = T / d**2  # each of the four kinds of pairs
    score = (length[1:] * length[:-1]).diag(-1) + noise(shared, N, N)[z][:, z] + noise(shared + 2 / d, T, T)
    score += noise(shared + 1 / d, N, T)[z] + noise(shared + 1 / d, T, N)[:, z]
    a1 = (gaps[0] * score + future).softmax(-1)
    read = a1 @ is_token

    length, own = 1 + noise(2 / d, N, 1), torch.nn.functional.one_hot(held, N).double().T  # (N, K)
    trace = length * (1 + noise(2 * more / d, N, 1))
    token, place = noise(1 / d, N, N).triu(1), noise(1 / d, T, K)  # their products with the tokens held
    token = (token + token.T)[:, held]
    key = read @ (own * trace + token + (1 - own) * noise(more / d, N, K)) + a1 @ (place + noise(more / d, T, K))
    key += noise(1 / (r * d), N, K)[z] + noise(1 / (r * d), T, K)
    key -= noise(1 / d, N, 1)[z] + noise((1 + 2 * r) / d, T, 1)  # with the first position, which is skipped
    key[0] -= 1
    query = ((own * length + token)[z] + place + noise(2 * r / d, T, K))[rows]
    a2 = (gaps[1] * (query @ key.T) + future[rows]).softmax(-1)

    said = a2 @ is_token
    tokens, places = said.square().sum(1), a2.square().sum(1)  # noise averages where attention is spread
    wrong = v * (tokens + (1 + 2 * r) * places) / d
    deviation = (wrong * (1 + N / d) + tokens / d).sqrt()[:, None]
    return said * (1 + noise(2 * v / d, N)) + deviation * noise(1.0, *said.shape)


def _require_gaps(gaps: object) -> tuple[float, float, float]:
    """Three finite numbers of at least 0."""
    good = isinstance(gaps, Sequence) and not isinstance(gaps, str) and len(gaps) == 3
    require(good, "gaps", repr(gaps), "three numbers >= 0, for W_K1, W_K2 and W_O2")
    return tuple(require_positive("gaps", gap, zero=True) for gap in gaps)
