"""The picture of the README and the first page: python book/_publish/picture.py

Two memories with correlated inputs (alpha = 0.95, p_1 = 3/4), descended with two learning rates.
"""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from amem_core import plots
from amem_core.explorer import planar_frame

FILE = Path(__file__).resolve().parent.parent / "_static" / "two-memories.svg"
ANGLES, FREQUENCIES = np.array([0.0, math.acos(0.95)]), np.array([0.75, 0.25])
SIGNS = np.array([1, -1])


def draw() -> str:
    """The picture as SVG text; its ink is a grey that reads on white and on black."""
    plots.use_style()
    figure, (plane, curve) = plt.subplots(1, 2, figsize=(7.2, 3.1), width_ratios=(1, 1.25))
    axis = np.linspace(-2, 9, 161), np.linspace(-16, 2, 161)
    X, Y = np.meshgrid(*axis)
    signed = SIGNS[:, None, None] * (np.cos(ANGLES)[:, None, None] * X + np.sin(ANGLES)[:, None, None] * Y)
    weights = FREQUENCIES[:, None, None]
    recalled, loss = (weights * (signed > 0)).sum(0), (weights * np.logaddexp(0, -signed)).sum(0)
    plane.contourf(X, Y, recalled, levels=[0.1, 0.5, 0.9, 1.1], colors=plots.BLUE, alpha=0.12)
    plane.contourf(X, Y, recalled, levels=[0.9, 1.1], colors=plots.BLUE, alpha=0.25)
    plane.contour(X, Y, loss, levels=np.geomspace(0.05, 4, 12), colors=plots.INK, linewidths=0.6, alpha=0.5)
    for rate, colour in ((10.0, plots.GREEN), (1.0, plots.RED)):
        run = planar_frame(ANGLES.tolist(), [0, 1], FREQUENCIES.tolist(), rate, 35, [0.0, 0.0])
        plane.plot(*np.array(run["trajectory"]).T, "o-", color=colour, lw=1.2, ms=2.5)
        curve.plot(run["loss"], color=colour, label=rf"$\eta = {rate:g}$")
    plane.set(xlim=(-2, 9), ylim=(-16, 2), xlabel="$v_1$", ylabel="$v_2$", title="the memory, step by step")
    curve.set(xlabel="step", ylabel="loss", title="loss")
    curve.legend()
    return plots.to_svg(figure, "two-memories").replace("currentColor", "#7a7a7a")


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
