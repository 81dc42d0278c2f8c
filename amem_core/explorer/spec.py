"""The parts an explorer is declared with: parameters and views.

A view names what it draws; the data come with each *frame*, a dictionary keyed by view:

- ``lines``: ``{"series": [{"name", "x", "y", "color", "dash"?}, ...]}``
- ``bars``: ``{"labels", "values", "colors"?}``
- ``heat``, ``matrix``: ``{"z": rows, "x"?, "y"?, "labels"?}``

and two entries for the reader: ``"regime"``, a sentence, and ``"readout"``, pairs of a symbol
(``"m_1"`` is set with a subscript) and its value.
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
    """One view of an explorer. ``x`` and ``y`` label the axes; further options by kind:

    - ``"lines"`` (time series): ``log_x``, ``log_y``, ``toggles`` (axes the reader may switch, such as
      ``["y"]``), ``range`` (of y), ``cursor=False``; in planar explorers ``source`` (``"loss"``,
      ``"accuracy"``, ``"margins"``), ``names`` and ``in_time`` (abscissa rate times step)
    - ``"plane"`` of ``W^T(u_1 - u_2)`` (level lines, regions of the 0-1 loss, trajectory, handles):
      ``radius``, ``levels``, ``tips`` (labels of the arrows, one a token)
    - ``"bars"``: ``range``, ``bind`` (a list in the state, such as ``"p"``, which the bars then set)
    - ``"heat"``: ``range``, ``unit``, ``log_x``, ``log_y``, ``bind={"x": p, "y": q}`` (a crosshair)
    - ``"matrix"`` (Gram, attention; diverging colours around 0, first row on top): ``range``

    >>> view("bars", "freq", "frequencies", bind="p")["bind"]
    'p'
    """
    kinds = ("lines", "plane", "bars", "heat", "matrix")
    require(kind in kinds, "kind", repr(kind), ", ".join(kinds))
    return {"type": kind, "id": name, "title": title, **options}
