"""One style for every figure: colour-blind safe, the same bytes from build to build, light and dark.

A figure is shown as inline SVG whose text and axes take the page's own colour, so that it
follows the reader's theme. The palette is Okabe and Ito's, in tones that read on white and on
black alike.
"""

import html
import io
import re
from contextlib import contextmanager

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import HTML, display
from matplotlib.figure import Figure

#: stands for the page's text colour while matplotlib draws
INK = "#010203"

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY = (
    "#2f7fc1",
    "#d57f00",
    "#1a9e77",
    "#b65f95",
    "#429bcb",
    "#d1495b",
    "#888888",
)
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY)

STYLE = {
    "figure.figsize": (7.2, 3.0),
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "patch.edgecolor": INK,
    "hatch.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "image.cmap": "viridis",
    "mathtext.fontset": "cm",
    "font.size": 10,
    "path.simplify_threshold": 0.3,
    "svg.hashsalt": "amem",
    "svg.fonttype": "path",
}


@contextmanager
def style():
    """The book's style, for the figures made inside."""
    with mpl.rc_context(STYLE):
        yield


def use_style() -> None:
    """Set the book's style for the whole notebook."""
    mpl.rcParams.update(STYLE)


def show_figure(figure: Figure, name: str, *, alt: str) -> None:
    """Show a figure as inline SVG that follows the page's theme, and close it.

    Parameters
    ----------
    figure : the matplotlib figure; text in ``INK`` takes the page's colour
    name : short and unique on its page; prefixes every id of the SVG
    alt : what the figure shows, for those who cannot see it; required

    Raises
    ------
    ValueError
        For an empty description or a name that is not made of letters, digits and hyphens.
    """
    if not alt.strip():
        raise ValueError("alt: found an empty text, allowed: a description of what the figure shows")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"name: found {name!r}, allowed: lower-case letters, digits and hyphens")
    svg = to_svg(figure, name)
    opening = f'<svg role="img" aria-labelledby="{name}-alt" '
    svg = svg.replace("<svg ", opening, 1).replace(">", f'><title id="{name}-alt">{html.escape(alt)}</title>', 1)
    display(HTML(f'<div class="amem-figure" id="{name}">{svg}</div>'))


def to_svg(figure: Figure, name: str) -> str:
    """The figure as the text of one ``<svg>`` element with ids prefixed by ``name``; closes the figure."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :]
    # a style element inside a page would rule the whole page: its two rules go to the root
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    # a tenth of a point is enough for positions; the scales of the glyphs keep their digits
    svg = re.sub(r' (?:d|x|y|x1|x2|y1|y2|points)="[^"]*"|translate\([^)]*\)', _shorter, svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _shorter(match: re.Match) -> str:
    text = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), match[0])
    return re.sub(r"(?<=[MLQCHVz]) (?=[-\d])| (?=[MLQCHVz])", "", re.sub(r"\s+", " ", text))
