"""The output matrix of layer 2 alone: a convex problem on fixed features. Section 5.3 of [CSB24], Figure 7, top.

Letters: ``P`` loss positions of all sequences, ``d`` dimension, ``N`` tokens. While the rest of the model is fixed, the
logits are ``base + X W_O2^T W_U^T``: linear in ``W_O2``, so that the loss is convex.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amem_core.induction.chunks import Chunk, Memory, Plan, chunk_size, share_out
from amem_core.induction.fast import Pass, Tables, exact_products, require_fit
from amem_core.induction.model import Weights
from amem_core.induction.task import Sequences
from amem_core.validation import finite, require, require_alike, require_count, require_floating

ROWS = {"cpu": 2**11}  # of features that are worked on together
ROWS_ELSEWHERE = 2**20


@dataclass(frozen=True, eq=False)
class Features:
    """What ``W_O2`` reads and adds to at every position that counts.

    Parameters
    ----------
    X : (P, d) what layer 2 attends to, through ``W_V2``
    base : (P, N) logits without layer 2
    targets : (P,) the next token
    W_U : (N, d) unembeddings
    """

    X: Float[Tensor, "P d"]
    base: Float[Tensor, "P N"]
    targets: Int64[Tensor, " P"]
    W_U: Float[Tensor, "N d"]

    def __post_init__(self) -> None:
        for name in ("X", "base", "W_U"):
            require_floating(name, getattr(self, name))
            require_alike(name, getattr(self, name), self.W_U, "W_U")
            require(getattr(self, name).ndim == 2, name, tuple(getattr(self, name).shape), "two dimensions")
        kind = getattr(self.targets, "dtype", type(self.targets).__name__)
        require(kind == torch.int64, "targets", kind, "a torch.int64 tensor")
        (N, d), P = self.W_U.shape, len(self.X)
        for name, shape in (("X", (P, d)), ("base", (P, N)), ("targets", (P,))):
            found = tuple(getattr(self, name).shape)
            require(found == shape, name, found, f"{shape}, as X and W_U ask")
        outside = self.targets[(self.targets < 0) | (self.targets >= N)].tolist()[:3]
        require(not outside, "targets", outside, f"0 to N-1 = {N - 1}")


def fixed_features(weights: Weights, sequences: Sequences, *, chunk: int | None = None) -> Features:
    """Features of all positions that count, under the present ``W_K1`` and ``W_K2``.

    They take ``P (N + d)`` numbers of memory. Errors as in ``loss_and_gradients``; their rows are in no particular,
    but always the same, order.

    >>> from amem_core.induction import BigramTask
    >>> batch = BigramTask.shakespeare(length=32).sample(4, torch.Generator().manual_seed(0))
    >>> features = fixed_features(Weights.draw(63, 32, 8, seed=0), batch)
    >>> len(features.X) == batch.counts.sum()
    tensor(True)
    """
    require_fit(weights, sequences)
    device = weights.p.device
    size = chunk_size(sequences.counts.shape[1], device) if chunk is None else require_count("chunk", chunk)
    with torch.no_grad(), exact_products(device, False):
        plan, tables = Plan(sequences, size, weights.p.dtype), Tables(weights)

        def work(group: range, forward: Pass) -> list[tuple[Tensor, Tensor, Tensor]]:
            return [_rows(forward, plan[k]) for k in group]

        parts = share_out(work, len(plan), device, lambda: Pass(tables, (), Memory(weights.p)))
    empty = (weights.p.new_empty(0, weights.d), weights.p.new_empty(0, weights.N), sequences.tokens.new_empty(0))
    columns = zip(empty, *(rows for part in parts for rows in part), strict=True)
    return Features(*(torch.cat(column) for column in columns), weights.W_U)


def _rows(forward: Pass, chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
    """Features of one chunk."""
    W, real = forward.tables.weights, chunk.weight > 0
    forward.layer_1(chunk.tokens)
    forward.layer_2(chunk)
    return forward.C2[real] @ W.W_V2.T, forward.Hq[real] @ W.W_U.T, chunk.targets[real]


def features_loss_and_gradient(
    W_O2: Float[Tensor, "d d"], features: Features
) -> tuple[Float[Tensor, ""], Float[Tensor, "d d"], Float[Tensor, ""]]:
    """Loss, gradient by ``W_O2`` and accuracy: two thin products of matrices for each block of rows.

    Equal to ``loss_and_gradients`` with ``trained=("W_O2",)`` up to rounding; all zero when no position counts.

    Raises
    ------
    ValueError
        For a matrix that does not fit the features.
    OverflowError
        When loss or gradient leaves the range of the dtype.

    Examples
    --------
    One position, two tokens, equal scores:

    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> features = Features(eye[:1], torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]), eye)
    >>> loss, gradient, accuracy = features_loss_and_gradient(0 * eye, features)
    >>> round(loss.item(), 4), gradient.tolist()
    (0.6931, [[-0.5, 0.0], [0.5, 0.0]])
    """
    U, (P, d) = features.W_U, features.X.shape
    require_floating("W_O2", W_O2)
    require_alike("W_O2", W_O2, U, "features")
    require(tuple(W_O2.shape) == (d, d), "W_O2", tuple(W_O2.shape), f"(d, d) with d = {d}")
    rows = ROWS.get(U.device.type, ROWS_ELSEWHERE)
    with torch.no_grad(), exact_products(U.device, False):
        M = U @ W_O2
        blocks = range(0, P, rows)

        def work(group: range, take: Memory) -> tuple[Tensor, Tensor, Tensor]:
            sums = U.new_zeros(()), torch.zeros_like(U), U.new_zeros(())
            for k in group:
                _add(slice(blocks[k], blocks[k] + rows), M, features, take, sums)
            return sums

        parts = share_out(work, len(blocks), U.device, lambda: Memory(U))
        zero = U.new_zeros(()), torch.zeros_like(U), U.new_zeros(())
        loss, by_logits, hits = (sum(column) / max(P, 1) for column in zip(zero, *parts, strict=True))
        gradient = U.T @ by_logits
    return finite("loss", loss), finite("W_O2", gradient), hits


def _add(here: slice, M: Tensor, features: Features, take: Memory, sums: tuple[Tensor, Tensor, Tensor]) -> None:
    """Add loss, derivative by ``U W_O2`` (N, d), and number of right positions of some rows."""
    X, targets = features.X[here], features.targets[here, None]
    G = torch.addmm(features.base[here], X, M.T, out=take("logits", len(X), len(M)))
    G = torch.log_softmax(G, -1, out=take("G", *G.shape))
    loss, by_logits, hits = sums
    right = G.gather(1, targets)
    loss -= right.sum()
    hits += (right >= G.amax(1, keepdim=True)).sum()
    G.exp_().scatter_add_(1, targets, torch.full_like(right, -1.0))
    by_logits.addmm_(G.T, X)
