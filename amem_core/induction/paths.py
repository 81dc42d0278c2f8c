r"""Along which ways the keys of layer 1 are told what to do: the gradient of ``W_K1`` in four parts.

``W_K1`` acts through :math:`h^1 = h^0 + A_1 h^0 G^\top` alone, and layer 2 uses :math:`h^1` four times: it goes on to
the logits (``"residual"``), it is read (``"values"``), it is looked for (``"keys"``), it looks (``"queries"``). With
:math:`M = W_O^2 W_V^2`, the first part has no factor that is trained, the second one has :math:`M`, the last two have
:math:`M` and :math:`W_K^2`. Only ``"keys"`` tells layer 1 to leave marks that layer 2 can find: the induction head.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.induction.fast import loss_and_gradients, require_fit
from amem_core.induction.model import SimplifiedTransformer, Weights
from amem_core.induction.task import Sequences
from amem_core.validation import require_count, require_positive

PATHS = ("residual", "values", "keys", "queries")


def gradient_paths(weights: Weights, sequences: Sequences) -> dict[str, Float[Tensor, "d d"]]:
    """The gradient of the loss by ``W_K1`` along each of the four paths; their sum is that of ``loss_and_gradients``.

    By autograd on the plain module, with all sequences at once: for small problems. Zero when no position counts.

    Raises
    ------
    ValueError
        For tokens or lengths that do not fit the weights, or different devices.

    Examples
    --------
    >>> from amem_core.induction import BigramTask
    >>> batch = BigramTask.shakespeare(length=32).sample(4, torch.Generator().manual_seed(0))
    >>> found = gradient_paths(Weights.draw(63, 32, 8, seed=0, zero=("W_O2",)), batch)
    >>> [name for name, gradient in found.items() if gradient.any()]
    ['residual']
    """
    require_fit(weights, sequences)
    model = SimplifiedTransformer(weights)
    h0 = model.W_E[sequences.inputs] + model.p[: sequences.inputs.shape[1]]
    h1 = h0 + model.attend(h0, model.W_K1) @ h0 @ model.W_V1.T @ model.W_O1.T
    copies = {name: h1.detach().clone().requires_grad_() for name in PATHS}
    scores = model.beta * (copies["queries"] @ model.W_K2 @ copies["keys"].mT)
    future = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
    read = scores.masked_fill(future, -torch.inf).softmax(-1) @ copies["values"]
    logits = (copies["residual"] + read @ model.W_V2.T @ model.W_O2.T) @ model.W_U.T
    counts, targets = sequences.counts, sequences.targets
    total = torch.nn.functional.cross_entropy(logits[counts], targets[counts], reduction="sum")
    by_copy = torch.autograd.grad(total / max(int(counts.sum()), 1), list(copies.values()))
    return {
        name: torch.autograd.grad(h1, model.W_K1, by_h1, retain_graph=True)[0]
        for name, by_h1 in zip(PATHS, by_copy, strict=True)
    }


def path_descent(
    weights: Weights, sequences: Sequences, rate: float, steps: int
) -> list[tuple[Weights, dict[str, Float[Tensor, "d d"]]]]:
    """Gradient descent on all three matrices: the weights after each step, and what ``W_K1`` moved along each path.

    Raises
    ------
    ValueError
        As ``gradient_paths``; for a rate that is not positive, or steps that are not a positive whole number.

    Examples
    --------
    >>> from amem_core.induction import BigramTask
    >>> batch = BigramTask.shakespeare(length=32).sample(4, torch.Generator().manual_seed(0))
    >>> moved = path_descent(Weights.draw(63, 32, 8, seed=0, zero=("W_K1", "W_K2", "W_O2")), batch, rate=0.1, steps=3)
    >>> [sorted(name for name, part in parts.items() if part.any()) for _, parts in moved][0]
    ['residual']
    """
    rate, steps = require_positive("rate", rate), require_count("steps", steps)
    moved, parts = [], {name: torch.zeros_like(weights.W_K1) for name in PATHS}
    for _ in range(steps):
        gradients, paths = loss_and_gradients(weights, sequences)[1], gradient_paths(weights, sequences)
        parts = {name: parts[name] - rate * path for name, path in paths.items()}
        weights = weights.replace(**{name: getattr(weights, name) - rate * G for name, G in gradients.items()})
        moved.append((weights, parts))
    return moved
