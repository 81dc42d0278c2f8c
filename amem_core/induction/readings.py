"""What is read off recorded curves (spikes, when something has happened), maps of attention, and trained models.

Letters: ``R`` runs, ``S`` recorded steps, ``B`` sequences, ``T`` positions, ``P`` positions that count.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from amem_core.induction.general import GeneralTransformer
from amem_core.validation import make_generator, require, require_count


def spikes(loss: np.ndarray, height: float = 0.3) -> np.ndarray:
    """How often each curve has risen by ``height`` above the lowest value so far, (R,).

    A spike ends where the curve is again within half of ``height`` of that value; what comes after is another one.

    Parameters
    ----------
    loss : (R, S)
    height : in nats

    Examples
    --------
    >>> spikes(np.array([[3.0, 2.0, 2.6, 2.5, 2.1, 2.4, 1.0], [3.0, 2.9, 3.1, 2.8, 2.7, 2.9, 2.8]])).tolist()
    [2, 0]
    """
    loss = _curves("loss", loss)
    require(height > 0, "height", height, "a positive number")
    above = loss - np.minimum.accumulate(loss, axis=1)
    counts, inside = np.zeros(len(loss), dtype=int), np.zeros(len(loss), dtype=bool)
    for column in above.T:
        begins = ~inside & (column >= height)
        counts += begins
        inside = (inside | begins) & (column > height / 2)
    return counts


def first_time(steps: np.ndarray, values: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """Step at which each curve first reaches a level, (R,), between two records by a straight line; nan if never.

    Parameters
    ----------
    steps : (S,) increasing
    values : (R, S)
    level : one for all, or (R,)

    Examples
    --------
    >>> first_time(np.array([0, 10, 20]), np.array([[0.0, 0.4, 0.8], [0.0, 0.1, 0.2], [0.9, 0.0, 0.0]]), 0.5).tolist()
    [12.5, nan, 0.0]
    """
    values, steps = _curves("values", values), np.asarray(steps, dtype=float)
    rising = steps.shape == values.shape[1:] and bool((np.diff(steps) > 0).all())
    require(rising, "steps", steps.tolist(), "increasing numbers, one for each column of values")
    level = np.broadcast_to(np.asarray(level, dtype=float), len(values))
    found = np.full(len(values), np.nan)
    for r, (curve, wanted) in enumerate(zip(values, level, strict=True)):
        if not (curve >= wanted).any():
            continue
        k = int((curve >= wanted).argmax())
        part = 0.0 if k == 0 else (wanted - curve[k - 1]) / (curve[k] - curve[k - 1])
        found[r] = steps[k] if k == 0 else steps[k - 1] + part * (steps[k] - steps[k - 1])
    return found


def previous_share(attention: np.ndarray) -> float:
    """Share of the attention that goes to the position just before, averaged over all positions but the first.

    >>> previous_share(np.array([[1.0, 0.0], [0.25, 0.75]]))
    0.25
    """
    return float(_attention(attention).diagonal(-1).mean())


def trigger_shares(
    attention: np.ndarray, tokens: Sequence[int], triggers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each position that counts, what it reads just behind the earlier triggers.

    Parameters
    ----------
    attention : (T, T); rows are divided by their sums
    tokens : at least T
    triggers : tokens

    Returns
    -------
    (P,) each: the share of the attention on places behind the same trigger; the mean weight of such a place; and that
    of a place behind another trigger, nan where there is none

    Examples
    --------
    >>> a = np.tril(np.ones((5, 5)))
    >>> a[4] = [0, 6, 0, 3, 1]
    >>> [x.tolist() for x in trigger_shares(a, [0, 7, 1, 8, 0], [0, 1])]  # one position counts, the last
    [[0.6], [0.6], [0.3]]
    """
    a, z = _attention(attention), np.asarray(tokens)
    require(z.ndim == 1 and len(z) >= len(a), "tokens", z.shape, f"at least T = {len(a)} tokens")
    behind = np.isin(z, triggers)
    found = []
    for t in range(1, len(a)):
        if not behind[t] or z[t] not in z[:t]:
            continue
        before = z[:t]  # place u + 1 is behind place u
        same, other = before == z[t], behind[:t] & (before != z[t])
        row = a[t, 1 : t + 1]
        found.append((row[same].sum(), row[same].mean(), row[other].mean() if other.any() else np.nan))
    share, own, others = np.array(found).reshape(-1, 3).T
    return share, own, others


def logits_with(
    model: GeneralTransformer, tokens: Int64[Tensor, "B T"], change: Callable[[Tensor], Tensor], layer: int = 0
) -> Float[Tensor, "B T N"]:
    """Logits of a model in one of whose layers attention is replaced.

    Parameters
    ----------
    tokens : (B, T)
    change : gives, for the attention of this layer (B, heads, T, T), the one to be used
    layer : its number

    Examples
    --------
    >>> model, tokens = GeneralTransformer(5, 4, 8), torch.tensor([[0, 3, 1, 1]])
    >>> torch.equal(logits_with(model, tokens, lambda a: a), model(tokens))
    True
    """
    require(0 <= layer < len(model.layers), "layer", layer, f"0 to {len(model.layers) - 1}")

    def instead(part: torch.nn.Module, inputs: tuple[Tensor], result: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        (h,), (_, a) = inputs, result
        B, T, d = h.shape
        a = change(a)
        read = a @ part.value(h).view(B, T, part.heads, -1).transpose(1, 2)
        return part.output(read.transpose(1, 2).reshape(B, T, d)), a

    hook = model.layers[layer].attention.register_forward_hook(instead)
    try:
        return model(tokens)
    finally:
        hook.remove()


def most_right(
    model: GeneralTransformer,
    tokens: Int64[Tensor, "B T"],
    pair: tuple[int, int],
    signs: Int64[Tensor, " B"],
    *,
    steps: int = 150,
    rate: float = 0.03,
    scale: float = 1.0,
    frozen: Sequence[str] = (),
) -> int:
    """Adam trains a model to prefer one of two answers in each sequence: the most that it ever has right at once.

    The loss is the mean of ``log(1 + exp(-scale * sign * difference))``; the end comes early when all are right.

    Parameters
    ----------
    model : is changed
    tokens : (B, T); what is compared is said at the last position
    pair : the two answers
    signs : (B,) 1 where the first is right, -1 where the second is
    steps, rate : of Adam
    scale : the larger, the less counts what is right already
    frozen : names of parameters that are left as they are

    Examples
    --------
    >>> most_right(GeneralTransformer(3, 2, 8), torch.tensor([[0, 2], [1, 2]]), (0, 1), torch.tensor([1, -1]))
    2
    """
    known = {name for name, _ in model.named_parameters()}
    require(set(frozen) <= known, "frozen", sorted(frozen), "names of parameters of the model")
    free = [weight for name, weight in model.named_parameters() if name not in frozen]
    optimiser, best = torch.optim.Adam(free, lr=rate), 0
    for _ in range(require_count("steps", steps)):
        logits = model(tokens)[:, -1]
        difference = signs * (logits[:, pair[0]] - logits[:, pair[1]])
        best = max(best, int((difference > 0).sum()))
        if best == len(tokens):
            break
        optimiser.zero_grad()
        torch.nn.functional.softplus(-scale * difference).mean().backward()
        optimiser.step()
    return best


def stratified_interval(
    right: Int64[Tensor, " B"],
    counted: Int64[Tensor, " B"],
    group: Bool[Tensor, " B"],
    share: float,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Accuracy with the ends of its bootstrap interval, where the share of a group in the positions is known.

    It is ``share`` times the accuracy of the group and ``1 - share`` times that of the rest. Whole sequences are drawn
    again within each, with replacement.

    Parameters
    ----------
    right, counted : (B,) of each sequence, positions that are right and positions that count
    group : (B,) the sequences of the group
    share : of the positions that count, by the law of the task, those in sequences of the group

    Examples
    --------
    >>> right, counted = torch.tensor([10, 10, 0, 0]), torch.tensor([10, 10, 10, 10])
    >>> stratified_interval(right, counted, torch.tensor([True, True, False, False]), 0.25)
    (0.25, 0.25, 0.25)
    """
    require(0 < share < 1, "share", share, "0 < share < 1")
    require(0 < level < 1, "level", level, "0 < level < 1")
    require_count("draws", draws)
    generator, value, again = make_generator(seed), 0.0, torch.zeros(draws, dtype=torch.float64)
    for weight, some in ((share, group), (1 - share, ~group)):
        mine, every = right[some].cpu(), counted[some].cpu()
        require(len(mine) > 0 and bool((every > 0).any()), "group", int(group.sum()), "positions that count in both")
        picks = torch.randint(len(mine), (draws, len(mine)), generator=generator)
        value += weight * (mine.sum() / every.sum()).item()
        again += weight * mine[picks].sum(1).double() / every[picks].sum(1)
    ends = torch.nanquantile(again, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return value, *ends.tolist()


def _attention(a: np.ndarray) -> np.ndarray:
    """Attention (T, T) whose rows sum to 1, of one whose rows have a positive sum."""
    a = np.asarray(a, dtype=float)
    square = a.ndim == 2 and a.shape[0] == a.shape[1] >= 2
    good = square and bool((a >= 0).all() and (a.sum(1) > 0).all())
    require(good, "attention", f"an array of shape {a.shape}", "(T, T), T >= 2, entries >= 0 and rows with a sum > 0")
    return a / a.sum(1, keepdims=True)


def _curves(name: str, values: np.ndarray) -> np.ndarray:
    """Finite numbers, (R, S)."""
    values = np.asarray(values, dtype=float)
    good = values.ndim == 2 and values.size > 0 and bool(np.isfinite(values).all())
    require(good, name, f"an array of shape {values.shape}", "finite numbers, (R, S)")
    return values
