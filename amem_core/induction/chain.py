r"""The bigram task as a Markov chain: given the outputs, what a sequence does is known exactly.

Letters: ``N`` tokens, ``K`` triggers, ``B`` choices of outputs, ``T`` positions. Given the outputs ``o_q``, the tokens
are a Markov chain: the row of a trigger ``q`` in the bigram matrix is replaced by certainty of ``o_q``. A trigger that
is its own output is never left: it absorbs the sequence. A trigger counts from its second occurrence on, so that

.. math::
    \mathbb E[\text{loss positions} \mid o]
    = \sum_q \Bigl( \sum_{t=1}^T P(z_t = q) - P(z_t = q \text{ for some } t \le T) \Bigr).
"""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from amem_core.induction.task import BigramTask
from amem_core.validation import make_generator, require, require_count


def transition_given(task: BigramTask, outputs: Int64[Tensor, "B K"]) -> Float64[Tensor, "B N N"]:
    """Transition matrices of the tokens, given the outputs of the task's fixed triggers.

    Raises
    ------
    ValueError
        For a task whose triggers are random, and outputs of another shape or outside the vocabulary.

    Examples
    --------
    >>> task = BigramTask.shakespeare(K=1)
    >>> chain = transition_given(task, torch.tensor([[7], [9]]))
    >>> chain.shape, chain[1, task.triggers[0], 9].item()
    (torch.Size([2, 63, 63]), 1.0)
    """
    _require_outputs(task, outputs)
    chain = task.bigram.repeat(len(outputs), 1, 1)
    for k, q in enumerate(task.triggers.tolist()):
        chain[:, q] = torch.nn.functional.one_hot(outputs[:, k], task.N).to(torch.float64)
    return chain


def expected_loss_positions(task: BigramTask, outputs: Int64[Tensor, "B K"]) -> Float64[Tensor, " B"]:
    """Expected number of positions that count in a sequence, given the outputs, (B,).

    Examples
    --------
    >>> task = BigramTask.shakespeare(K=1, length=256)
    >>> kept = expected_loss_positions(task, task.triggers[None])  # a space after every space
    >>> other = expected_loss_positions(task, task.triggers[None] + 1)
    >>> round(kept.item(), 1) > 240 > 60 > round(other.item(), 1)
    True
    """
    chain, triggers = transition_given(task, outputs), task.triggers
    B, K = outputs.shape
    # row 0: law of z_t; row 1 + k: law of z_t where the k-th trigger has not come so far
    law = task.unigram.expand(B, 1 + K, task.N).clone()
    rows, count = torch.arange(1, K + 1), torch.zeros(B, dtype=torch.float64)
    for t in range(task.length):
        law = law if t == 0 else law @ chain
        count += law[:, 0, triggers].sum(1)
        law[:, rows, triggers] = 0.0
    return count - (1 - law[:, 1:].sum(2)).sum(1)


def long_run_share(task: BigramTask, outputs: Int64[Tensor, "B K"]) -> Float64[Tensor, " B"]:
    """Share of positions that count in an endless sequence whose triggers do not absorb it, (B,).

    The sequence goes from trigger to trigger. With ``Q`` and ``R`` the moves from the other tokens among themselves
    and to triggers, ``(I - Q)^-1 R`` says at which trigger a walk arrives next and ``(I - Q)^-1 1`` how long it takes;
    the share is the inverse of the mean time between two triggers, under the stationary law of the trigger met.

    Raises
    ------
    ValueError
        Where triggers lead to triggers only, for ever: a trigger that is its own output, or a cycle of them; the share
        is then that of where the sequence ends.

    Examples
    --------
    >>> task = BigramTask.shakespeare(K=1)
    >>> round(long_run_share(task, torch.tensor([[9]])).item(), 3)
    0.167
    """
    _require_outputs(task, outputs)
    q, N = task.triggers, task.N
    others = (~torch.isin(torch.arange(N), q)).nonzero()[:, 0]
    Q, R = task.bigram[others][:, others], task.bigram[others][:, q]
    inverse = torch.linalg.inv(torch.eye(len(others), dtype=torch.float64) - Q)
    arrive, time = torch.zeros(N, len(q), dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    arrive[others], time[others] = inverse @ R, inverse.sum(1)
    arrive[q, torch.arange(len(q))] = 1.0  # an output that is a trigger has arrived
    absorbed = caught(task, outputs)
    require(not absorbed.any(), "outputs", outputs[absorbed].tolist()[:3], "no trigger that leads to triggers for ever")
    # alpha = alpha A, sum alpha = 1, where A[k, l] is the probability to go from the k-th trigger to the l-th
    A = arrive[outputs]
    system = A.mT - torch.eye(len(q), dtype=torch.float64)
    system[:, -1] = 1.0
    right = torch.zeros(len(q), dtype=torch.float64)
    right[-1] = 1.0
    alpha = torch.linalg.solve(system, right.expand(len(outputs), -1))
    return 1 / (1 + (alpha * time[outputs]).sum(1))


def outputs_with_and_without(
    task: BigramTask, size: int, seed: int | torch.Generator
) -> tuple[Int64[Tensor, "B K"], Int64[Tensor, "B K"]]:
    """Outputs of two kinds, ``size`` of each: some trigger is its own output, and none is.

    Together, with the weights ``1 - (1 - 1/N)^K`` and ``(1 - 1/N)^K``, they are the outputs of a task that allows both.

    >>> own, none = outputs_with_and_without(BigramTask.shakespeare(), 3, seed=0)
    >>> triggers = BigramTask.shakespeare().triggers
    >>> (own == triggers).any(1).tolist(), (none == triggers).any().item()
    ([True, True, True], False)
    """
    require_count("size", size)
    require(task.triggers is not None, "task", "random triggers", "fixed triggers")
    generator, q = make_generator(seed), task.triggers
    shifted = torch.randint(1, task.N, (size, task.K), generator=generator)
    none = (q + shifted) % task.N
    # the first own output is at place k with probability proportional to (1 - 1/N)^k; later places are free
    place = torch.multinomial((1 - 1 / task.N) ** torch.arange(task.K).double(), size, True, generator=generator)
    free = torch.randint(task.N, (size, task.K), generator=generator)
    earlier = (q + torch.randint(1, task.N, (size, task.K), generator=generator)) % task.N
    k = torch.arange(task.K)
    own = torch.where(k < place[:, None], earlier, torch.where(k == place[:, None], q, free))
    return own, none


def caught(task: BigramTask, outputs: Int64[Tensor, "B K"]) -> Bool[Tensor, " B"]:
    """Whether some trigger leads to triggers for ever: it is its own output, or leads into a cycle of triggers, (B,).

    >>> task = BigramTask.shakespeare(K=2)
    >>> a, b = task.triggers.tolist()
    >>> caught(task, torch.tensor([[a, 9], [b, a], [b, 9], [8, 9]])).tolist()
    [True, True, False, False]
    """
    _require_outputs(task, outputs)
    B, K = outputs.shape
    where = torch.full((task.N,), -1).scatter_(0, task.triggers, torch.arange(K))
    leads = where[outputs]  # the number of the next trigger, or -1
    padded = torch.cat([leads, torch.full((B, 1), -1)], 1)  # place -1: left the triggers
    at = torch.arange(K).expand(B, K)
    for _ in range(K):
        at = padded.gather(1, at % (K + 1))
    return (at >= 0).any(1)


def _require_outputs(task: BigramTask, outputs: Int64[Tensor, "B K"]) -> None:
    require(isinstance(task, BigramTask) and task.triggers is not None, "task", "random triggers", "fixed triggers")
    good = isinstance(outputs, Tensor) and outputs.dtype == torch.int64 and outputs.ndim == 2
    good = good and outputs.shape[1] == task.K and len(outputs) >= 1
    require(good, "outputs", getattr(outputs, "shape", outputs), f"integers (B, K) with K = {task.K}")
    outside = outputs[(outputs < 0) | (outputs >= task.N)].tolist()[:3]
    require(not outside, "outputs", outside, f"0 to N-1 = {task.N - 1}")
