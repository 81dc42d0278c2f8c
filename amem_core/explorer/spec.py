"""The parts an explorer is declared with: parameters and views.

A view names what it draws; the data come with each *frame*, a dictionary keyed by view (its entries are told with
``view``), and two entries for the reader: ``"regime"``, a sentence, and ``"readout"``, pairs of a symbol (``"m_1"`` is
set with a subscript) and its value. A view of kind ``"sequence"`` is hidden where a frame has nothing for it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amem_core.validation import require


@dataclass(frozen=True)
class Parameter:
    """One slider: its values (increasing), where it starts, and ticks at the values that mean something.

    ``continuous`` lets a live notebook, and the planar step, use all values in between; ``log``
    spaces it logarithmically. ``ticks`` maps a short text to a value.

    >>> Parameter("d", "dimension d", [8, 16, 32], start=16).start
    16
    """

    name: str
    label: str
    values: Sequence[float]
    start: float
    ticks: Mapping[str, float] = field(default_factory=dict)
    log: bool = False
    continuous: bool = False

    def __post_init__(self) -> None:
        values = list(self.values)
        finite = all(math.isfinite(v) for v in values)
        rising = all(a < b for a, b in itertools.pairwise(values))
        require(len(values) >= 2 and finite and rising, "values", values, "two or more finite values, increasing")
        require(not self.log or values[0] > 0, "values", values, "positive values on a logarithmic slider")
        for name, value in (("start", self.start), *self.ticks.items()):
            self.validate(value, name)

    def validate(self, value: float, argument: str = "") -> None:
        """Raise ``ValueError`` unless the slider can stand at ``value``."""
        low, high = self.values[0], self.values[-1]
        good = isinstance(value, int | float) and (low <= value <= high if self.continuous else value in self.values)
        allowed = f"{low} to {high}" if self.continuous else f"one of {list(self.values)}"
        require(good, argument or self.name, value, allowed)

    def spec(self) -> dict[str, Any]:
        """What the page needs."""
        fields = {"name": self.name, "label": self.label, "values": list(self.values)}
        return fields | {"ticks": list(self.ticks.items()), "log": self.log, "continuous": self.continuous}


def view(kind: str, name: str, title: str, **options: Any) -> dict[str, Any]:
    """One view of an explorer. ``x`` and ``y`` label the axes; by kind, the frame's entry and further options:

    - ``"lines"``, ``{"series": [{"name", "x", "y", "color", "dash"?}, ...]}``: ``log_x``, ``log_y``, ``toggles`` (axes
      the reader may switch, such as ``["y"]``), ``range`` (of y), ``cursor=False``; in planar explorers ``source``
      (``"loss"``, ``"accuracy"``, ``"margins"``), ``names`` and ``in_time`` (abscissa rate times step)
    - ``"plane"`` of ``W^T(u_1 - u_2)`` (planar explorers only): ``radius``, ``levels``, ``tips`` (labels of the arrows)
    - ``"bars"``, ``{"labels", "values", "colors"?}``: ``range``, ``bind`` (a list in the state, such as ``"p"``)
    - ``"heat"``, ``{"z": rows, "x"?, "y"?, "labels"?}``: ``range``, ``unit``, ``log_x``, ``log_y``, ``bind`` (a
      crosshair: ``{"x": p, "y": q}``)
    - ``"matrix"``, as heat, first row on top (diverging colours around 0; of one sign where ``range`` begins at 0)
    - ``"sequence"``, ``{"tokens", "marks", "reads", "predicted"?}``: a text whose cursor is the time (``steps``: its
      length less 1). Marks: ``k`` for the k-th trigger, ``-k`` for its output, or 0; reads: see ``induction.strongest``

    >>> view("bars", "freq", "frequencies", bind="p")["bind"]
    'p'
    """
    kinds = ("lines", "plane", "bars", "heat", "matrix", "sequence")
    require(kind in kinds, "kind", repr(kind), ", ".join(kinds))
    return {"type": kind, "id": name, "title": title, **options}
