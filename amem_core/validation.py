"""Checks of input, shared by every room: each raises a ``ValueError`` that names the
argument, the value found and what is allowed, before any work is done."""

import torch
from torch import Tensor


def require(condition: bool, argument: str, found: object, allowed: str) -> None:
    """Raise ``ValueError`` naming ``argument``, the value found and what is allowed."""
    if not condition:
        raise ValueError(f"{argument}: found {found}, allowed: {allowed}")


def require_floating(argument: str, tensor: object) -> None:
    """A finite float32 or float64 tensor."""
    require(isinstance(tensor, Tensor), argument, type(tensor).__name__, "a torch.Tensor")
    floating = tensor.dtype in (torch.float32, torch.float64)
    require(floating, argument, f"dtype {tensor.dtype}", "torch.float32 or torch.float64")
    finite = bool(torch.isfinite(tensor).all())
    require(finite, argument, "a value that is NaN or infinite", "finite values only")


def require_broadcast(shapes: dict[str, tuple]) -> torch.Size:
    """The common batch shape of several arguments, or a ``ValueError`` naming them all."""
    try:
        return torch.broadcast_shapes(*(tuple(s) for s in shapes.values()))
    except RuntimeError:
        names = ", ".join(shapes)
        found = ", ".join(str(tuple(s)) for s in shapes.values())
        raise ValueError(f"{names}: found batch shapes {found}, allowed: shapes that broadcast together") from None


def require_targets(targets: object, N: int, M: int) -> Tensor:
    """Targets (..., N) as 64-bit integers in ``0 .. M-1``."""
    integers = isinstance(targets, Tensor) and targets.dtype in (torch.int64, torch.int32)
    require(integers, "targets", getattr(targets, "dtype", type(targets).__name__), "a tensor of integers")
    good = targets.ndim >= 1 and targets.shape[-1] == N
    require(good, "targets", tuple(targets.shape), f"(..., N) with N = {N}")
    outside = targets[(targets < 0) | (targets >= M)].tolist()[:3]
    require(not outside, "targets", outside, f"0 to M-1 = {M - 1}")
    return targets.long()


def require_frequencies(p: Tensor, N: int) -> None:
    """Frequencies (..., N), not negative, summing to 1; finite and floating already."""
    require(p.ndim >= 1 and p.shape[-1] == N, "p", tuple(p.shape), f"(..., N) with N = {N}")
    negative = p[p < 0].tolist()[:3]
    require(not negative, "p", f"frequencies of {negative}", "non-negative frequencies")
    # N roundings of at most one unit in the last place each
    tolerance = 4 * N * torch.finfo(p.dtype).eps
    sums = p.sum(-1)
    wrong = sums[(sums - 1).abs() > tolerance].tolist()[:3]
    require(not wrong, "p", f"sums of {wrong}", f"sums of 1 within {tolerance:.1g}")


def require_alike(argument: str, tensor: Tensor, other: Tensor, owner: str) -> None:
    """The same dtype and device as another tensor."""
    require(tensor.dtype == other.dtype, argument, tensor.dtype, f"the dtype of {owner}, {other.dtype}")
    require(tensor.device == other.device, argument, tensor.device, f"the device of {owner}, {other.device}")


def require_rate(value: object, like: Tensor) -> Tensor:
    """A learning rate as a tensor like another: a number or a tensor, finite and at least 0."""
    allowed = f"finite numbers >= 0 in {like.dtype}"
    known = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    require(known, "rate", repr(value), allowed)
    rate = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
    require(bool(((rate >= 0) & rate.isfinite()).all()), "rate", value, allowed)
    return rate


def finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor itself, or ``OverflowError``: what is not finite is never returned silently."""
    if not torch.isfinite(tensor).all():
        raise OverflowError(f"{name}: a value leaves the range of {tensor.dtype}; use smaller rates or embeddings")
    return tensor


def require_count(argument: str, value: object, least: int = 1) -> int:
    """A whole number of at least ``least`` (``bool`` is refused)."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value >= least, argument, repr(value), f"a whole number >= {least}")
    return int(value)


def require_positive(argument: str, value: object, *, zero: bool = False) -> float:
    """A finite number greater than zero (or at least zero)."""
    bound = ">= 0" if zero else "> 0"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    good = number and value == value and abs(value) != float("inf") and (value > 0 or (zero and value == 0))
    require(good, argument, repr(value), f"a finite number {bound}")
    return float(value)


def make_generator(seed: "int | torch.Generator") -> torch.Generator:
    """The generator itself, or a fresh CPU generator with this seed."""
    if isinstance(seed, torch.Generator):
        return seed
    require(require_count("seed", seed, least=0) < 2**63, "seed", seed, "a whole number below 2**63")
    return torch.Generator().manual_seed(seed)
