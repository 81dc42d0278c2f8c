r"""Loss and gradients of the simplified transformer by hand: the numbers of :mod:`amem_core.induction.model`, faster.

Letters: ``c`` sequences of a chunk, ``T`` positions, ``P`` loss positions, ``d`` dimension, ``N`` tokens. With
:math:`\beta = 1/\sqrt d` and :math:`G = W_O^1W_V^1`, and rows for positions:

.. math::
    A_1 &= \mathrm{softmax}(\beta H_0W_K^1H_0^\top), & H_1 &= H_0 + A_1 H_0G^\top, \\
    A_2 &= \mathrm{softmax}(\beta H_qW_K^2H_1^\top), & H_2 &= H_q + A_2H_1 (W_O^2W_V^2)^\top,

where :math:`H_q` are the rows of :math:`H_1` at loss positions: no other position needs a query in layer 2, and no key
a projection. :math:`H_0`, :math:`H_0W_K^1`, :math:`H_0G^\top` are sums of a row for the token and one for the position.
Backwards, with :math:`\dot X` for the derivative by :math:`X`: attention :math:`Y = AV`,
:math:`A = \mathrm{softmax}(S)`, has :math:`\dot S = A \circ (\dot Y V^\top - \delta 1^\top)`, where :math:`\delta`
holds the products of the rows of :math:`Y` and :math:`\dot Y`. Then

.. math::
    \dot W_O^2 = \dot H_2^\top A_2H_1W_V^{2\top}, \qquad \dot W_K^2 = \beta H_q^\top\dot S_2H_1, \qquad
    \dot W_K^1 = \beta H_0^\top\dot S_1H_0.

Chunks of a few sequences stay in the cache; blocks of rows leave out most of what the causal mask hides.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.induction.chunks import Chunk, Memory, Plan, chunk_size, share_out
from amem_core.induction.model import TRAINED, Weights, require_tokens
from amem_core.induction.task import Sequences
from amem_core.validation import finite, require, require_count

ROW_BLOCKS = 4  # of layer 1


class Tables:
    """What all chunks share: sums over layers and tables by token and by position."""

    def __init__(self, weights: Weights) -> None:
        W = self.weights = weights
        V = (W.W_O1 @ W.W_V1).T
        # rows of H0, of beta H0 W_K1, of H0 G^T
        self.by_token, self.by_position = (torch.cat([X, W.beta * (X @ W.W_K1), X @ V], 1) for X in (W.W_E, W.p))
        self.K2, self.M = W.beta * W.W_K2, W.W_U @ W.W_O2 @ W.W_V2
        self.mask = torch.full((W.T, W.T), -torch.inf, dtype=W.p.dtype, device=W.p.device).triu_(1)

    def gradients(self, sums: dict[str, Tensor], trained: tuple[str, ...]) -> dict[str, Tensor]:
        """The derivatives by the trained matrices, (d, d) each."""
        W, found = self.weights, {}
        if "W_K1" in trained:
            found["W_K1"] = W.beta * (W.W_E.T @ sums["E"] + W.p.T @ sums["p"])
        if "W_K2" in trained:
            found["W_K2"] = W.beta * sums["K2"]
        if "W_O2" in trained:
            found["W_O2"] = W.W_U.T @ sums["O2"] @ W.W_V2.T
        return found


class Pass:
    """Chunks, one after the other: the sums that loss and gradients are made of."""

    def __init__(self, tables: Tables, trained: tuple[str, ...], memory: Memory) -> None:
        self.tables, self.trained, self.take = tables, trained, memory
        W = self.weights = tables.weights
        self.d = W.d
        self.sums = {"loss": W.p.new_zeros(()), "hits": W.p.new_zeros(())}
        shapes = {"W_K1": {"E": W.W_E, "p": W.p}, "W_K2": {"K2": W.W_K2}, "W_O2": {"O2": W.W_U}}
        self.sums |= {key: torch.zeros_like(X) for name in trained for key, X in shapes[name].items()}

    def add(self, chunk: Chunk) -> None:
        """One chunk, forward and backward."""
        self.layer_1(chunk.tokens)
        self.layer_2(chunk)
        G = self.head(chunk)
        if "W_O2" in self.trained:
            self.sums["O2"].addmm_(G.T, self.C2)
        if "W_K1" in self.trained or "W_K2" in self.trained:
            self.backward_2(chunk, G)
        if "W_K1" in self.trained:
            self.backward_1(chunk.tokens)

    def layer_1(self, tokens: Tensor) -> None:
        """``H0``, ``V`` and ``H1``, (c, T, d); for each block of rows, its range, attention and output."""
        (c, T), d = tokens.shape, self.d
        X = self.take("X", c * T, 3 * d)
        torch.index_select(self.tables.by_token, 0, tokens.flatten(), out=X)
        self.H0, Q, self.V = X.view(c, T, 3 * d).add_(self.tables.by_position[:T]).split(d, -1)
        self.H1, self.row_blocks = self.take("H1", c, T, d), []
        rows = max(16, -(-T // ROW_BLOCKS))
        for r in range(0, T, rows):
            s = min(r + rows, T)
            S = torch.bmm(Q[:, r:s], self.H0[:, :s].mT, out=self.take(f"S1 {r}", c, s - r, s))
            S[:, :, r:].add_(self.tables.mask[: s - r, : s - r])
            A = torch.softmax(S, -1, out=self.take(f"A1 {r}", c, s - r, s))
            out = torch.bmm(A, self.V[:, :s], out=self.take(f"out {r}", c, s - r, d))
            torch.add(out, self.H0[:, r:s], out=self.H1[:, r:s])
            self.row_blocks.append((r, s, A, out))

    def query_blocks(self, chunk: Chunk, *flat: Tensor) -> Iterator[tuple]:
        """The parts of tensors (c P, .) that belong to each block: number, positions seen, and (c, P_k, .) of each."""
        begin, c = 0, len(chunk.tokens)
        for k, (P, sees) in enumerate(chunk.blocks):
            yield k, sees, *(X[begin : begin + c * P].view(c, P, -1) for X in flat)
            begin += c * P

    def layer_2(self, chunk: Chunk) -> None:
        """``Hq``, ``Y = beta Hq W_K2`` and ``C2 = A2 H1``, (c P, d); ``A2`` (c, P_k, .) of each block."""
        n, d = len(chunk.rows), self.d
        self.Hq = torch.index_select(self.H1.view(-1, d), 0, chunk.rows, out=self.take("Hq", n, d))
        self.Y = torch.mm(self.Hq, self.tables.K2, out=self.take("Y", n, d))
        self.C2, self.A2 = self.take("C2", n, d), []
        for k, sees, q, Y, C in self.query_blocks(chunk, chunk.queries, self.Y, self.C2):
            H, (c, P, _) = self.H1[:, :sees], Y.shape
            S = self.take(f"S2 {k}", c * P, sees)
            S = torch.index_select(self.tables.mask[:, :sees], 0, q.flatten(), out=S).view(c, P, sees)
            A = torch.softmax(S.baddbmm_(Y, H.mT), -1, out=self.take(f"A2 {k}", c, P, sees))
            torch.bmm(A, H, out=C)
            self.A2.append(A)

    def head(self, chunk: Chunk) -> Tensor:
        """Add to loss and hits; the derivative by the logits, (c P, N)."""
        logits = self.take("logits", len(chunk.rows), self.weights.N)
        torch.mm(self.Hq, self.weights.W_U.T, out=logits).addmm_(self.C2, self.tables.M.T)
        G = torch.log_softmax(logits, -1, out=self.take("G", *logits.shape))
        right = G.gather(1, chunk.targets[:, None])
        self.sums["loss"] -= right[:, 0] @ chunk.weight
        self.sums["hits"] += (right >= G.amax(1, keepdim=True))[:, 0].to(G.dtype) @ chunk.weight
        G.exp_().scatter_add_(1, chunk.targets[:, None], torch.full_like(right, -1.0))
        return G.mul_(chunk.weight[:, None])

    def backward_2(self, chunk: Chunk, G: Tensor) -> None:
        """Add to the sum for ``W_K2``; the derivative by ``H1``, (c, T, d), where ``W_K1`` is trained."""
        (c, T), n, d = chunk.tokens.shape, len(chunk.rows), self.d
        dC2 = torch.mm(G, self.tables.M, out=self.take("dC2", n, d))
        delta = torch.mul(dC2, self.C2, out=self.take("product", n, d)).sum(1, keepdim=True)
        R = self.take("R", n, d)
        self.dH1 = self.take("dH1", c, T, d)
        for k, sees, dC, C_delta, Y, out in reversed(list(self.query_blocks(chunk, dC2, delta, self.Y, R))):
            H, A = self.H1[:, :sees], self.A2[k]
            dS = torch.bmm(dC, H.mT, out=self.take(f"S2 {k}", *A.shape)).sub_(C_delta).mul_(A)
            torch.bmm(dS, H, out=out)
            if "W_K1" in self.trained:
                last = k == len(chunk.blocks) - 1  # comes first, and sees all T
                dH = torch.bmm(A.mT, dC, out=self.dH1 if last else self.take("dH", c, sees, d)).baddbmm_(dS.mT, Y)
                if not last:
                    self.dH1[:, :sees] += dH
        if "W_K2" in self.trained:
            self.sums["K2"].addmm_(self.Hq.T, R)
        if "W_K1" in self.trained:
            dHq = torch.mm(G, self.weights.W_U, out=self.take("product", n, d)).addmm_(R, self.tables.K2.T)
            self.dH1.view(-1, d).index_add_(0, chunk.rows, dHq)

    def backward_1(self, tokens: Tensor) -> None:
        """Add to the sums for ``W_K1``: of rows of ``dS1 H0``, by token and by position."""
        (c, T), d = tokens.shape, self.d
        X = self.take("X1", c, T, d)
        for r, s, A, out in self.row_blocks:
            dH = self.dH1[:, r:s]
            delta = out.mul_(dH).sum(-1, keepdim=True)
            dS = torch.bmm(dH, self.V[:, :s].mT, out=self.take(f"S1 {r}", c, s - r, s)).sub_(delta).mul_(A)
            X[:, r:s] = torch.bmm(dS, self.H0[:, :s], out=out)
        if tokens.device.type == "cpu":
            self.sums["E"].index_add_(0, tokens.flatten(), X.view(-1, d))
        else:  # one after the other in no fixed order there, and slow
            one_hot = torch.nn.functional.one_hot(tokens.flatten(), self.weights.N).to(X.dtype)
            self.sums["E"].addmm_(one_hot.T, X.view(-1, d))
        self.sums["p"][:T] += X.sum(0)


def loss_and_gradients(
    weights: Weights,
    sequences: Sequences,
    *,
    chunk: int | None = None,
    trained: tuple[str, ...] = TRAINED,
    tf32: bool = False,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, "d d"]], Float[Tensor, ""]]:
    """Mean cross-entropy over the positions that count, its gradients, and the share of them that is predicted right.

    The loss and the gradients of ``loss_plain``, without autograd. Memory grows with ``chunk``, the number of
    sequences that are worked on together, not with the number of sequences. On a CPU the chunks are shared among the
    threads that torch may use. The same call gives the same bits.

    Parameters
    ----------
    weights, sequences : on one device
    chunk : sequences worked on together; ``None`` chooses for the device
    trained : gradients wanted; ``()`` for loss and accuracy alone
    tf32 : on CUDA, products of float32 with 10 bits of mantissa; off, they are exact float32 whatever torch's settings

    Returns
    -------
    loss, gradients by name (d, d), accuracy; all zero when no position counts. A position is right when no other
    token has a higher score than the right one.

    Raises
    ------
    ValueError
        For tokens or lengths that do not fit the weights, different devices, unknown names, a chunk below 1.
    OverflowError
        When loss or a gradient leaves the range of the dtype.

    Examples
    --------
    >>> from amem_core.induction import BigramTask
    >>> batch = BigramTask.shakespeare(length=32).sample(4, torch.Generator().manual_seed(0))
    >>> weights = Weights.draw(63, 32, 8, seed=0)
    >>> loss, gradients, accuracy = loss_and_gradients(weights, batch)
    >>> sorted(gradients), gradients["W_O2"].shape
    (['W_K1', 'W_K2', 'W_O2'], torch.Size([8, 8]))
    """
    require_fit(weights, sequences)
    known = isinstance(trained, tuple) and set(trained) <= set(TRAINED)
    require(known, "trained", repr(trained), f"a tuple of names from {TRAINED}")
    wanted = tuple(name for name in TRAINED if name in trained)
    device, T = weights.p.device, sequences.counts.shape[1]
    size = chunk_size(T, device) if chunk is None else require_count("chunk", chunk)
    with torch.no_grad(), exact_products(device, tf32):
        plan, tables = Plan(sequences, size, weights.p.dtype), Tables(weights)

        def work(group: range, memory: Memory) -> dict[str, Tensor]:
            part = Pass(tables, wanted, memory)
            for k in group:
                part.add(plan[k])
            return part.sums

        sums = Pass(tables, wanted, Memory(weights.p)).sums
        for part in share_out(work, len(plan), device, lambda: Memory(weights.p)):
            for key, value in part.items():
                sums[key] += value
        gradients = tables.gradients(sums, wanted)
    for name, value in {"loss": sums["loss"], **gradients}.items():
        finite(name, value)
    return sums["loss"], gradients, sums["hits"]


def require_fit(weights: Weights, sequences: Sequences) -> None:
    """Sequences that these weights can read."""
    require_tokens(sequences.tokens, weights.N, weights.T + 1)
    found, wanted = sequences.tokens.device, weights.p.device
    require(found == wanted, "sequences", f"device {found}", f"the device of the weights, {wanted}")


@contextmanager
def exact_products(device: torch.device, tf32: bool) -> Iterator[None]:
    """Products of float32 matrices on CUDA in full precision, or in TF32; torch's setting returns afterwards."""
    require(isinstance(tf32, bool), "tf32", repr(tf32), "True or False")
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul
    newer = hasattr(settings, "fp32_precision")  # torch 2.9
    name, exact, fast = ("fp32_precision", "ieee", "tf32") if newer else ("allow_tf32", False, True)
    before = getattr(settings, name)
    setattr(settings, name, fast if tf32 else exact)
    try:
        yield
    finally:
        setattr(settings, name, before)
