"""Figures: the same bytes from build to build, ids of their own, the page's colours, words for who cannot see them."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("agg")

import matplotlib.pyplot as plt

from amem_core import plots

ROOT = Path(__file__).resolve().parents[1]
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"

# run here and in processes of their own: lines, a filled area, an image, mathematics, a legend
DRAW = r"""
import numpy as np
import matplotlib.pyplot as plt
from amem_core import plots

def draw():
    with plots.style():
        figure, (left, right) = plt.subplots(1, 2)
        x = np.linspace(0, 3, 50)
        left.plot(x, np.sin(x), label=r"$\sin x$")
        left.fill_between(x, 0, np.sin(x), hatch="//", alpha=0.3)
        left.set(xlabel="time $t$", ylabel="score", title="A title")
        left.legend()
        right.imshow(np.outer(x, x))
        right.scatter(x[:9], x[:9], marker="x")
    return figure
"""


@pytest.fixture
def shown(monkeypatch):
    pieces = []
    monkeypatch.setattr(plots, "display", lambda piece: pieces.append(piece.data))
    return pieces


def draw() -> plt.Figure:
    scope: dict = {}
    exec(DRAW, scope)
    return scope["draw"]()


def show(shown: list[str], name: str = "sine", alt: str = "A sine, and an outer product.") -> str:
    plots.show_figure(draw(), name, alt=alt)
    return shown[-1]


def test_a_figure_drawn_twice_is_the_same_to_the_byte(shown):
    assert show(shown) == show(shown)


def test_a_figure_is_the_same_in_every_process(shown):
    here = show(shown)
    script = DRAW + (
        "\nimport sys\nplots.display = lambda piece: sys.stdout.write(piece.data)\n"
        "plots.show_figure(draw(), 'sine', alt='A sine, and an outer product.')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "2", "MPLBACKEND": "agg"}
    there = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True, text=True, check=True, env=environment, cwd=ROOT,
    ).stdout  # fmt: skip
    assert there == here


def test_a_figure_is_one_well_formed_picture_with_words(shown):
    page = ET.fromstring(show(shown, alt='Scores "rise" & fall < 1'))
    assert (page.tag, page.get("id"), page.get("class")) == ("div", "sine", "amem-figure")
    (svg,) = page
    assert svg.tag == f"{SVG}svg"
    assert svg.get("role") == "img"
    (title,) = [part for part in svg if part.tag == f"{SVG}title"]
    assert title.get("id") == svg.get("aria-labelledby")
    assert title.text == 'Scores "rise" & fall < 1'
    assert svg.get("viewBox")


def test_two_figures_on_a_page_share_no_id_and_every_reference_finds_its_own(shown):
    pieces = [show(shown, name) for name in ("first", "second")]
    seen: set[str] = set()
    for name, piece in zip(("first", "second"), pieces, strict=True):
        page = ET.fromstring(piece)
        ids = [part.get("id") for part in page.iter() if part.get("id")]
        assert len(ids) == len(set(ids))
        assert all(found == name or found.startswith(f"{name}-") for found in ids)
        assert not seen & set(ids)
        seen |= set(ids)
        links = {
            part.get(key)[1:] for part in page.iter() for key in ("href", LINK) if (part.get(key) or "").startswith("#")
        }
        links |= set(re.findall(r"url\(#([^)]+)\)", piece))
        assert links
        assert links <= set(ids)


def test_text_and_axes_take_the_colour_of_the_page(shown):
    piece = show(shown)
    assert "currentColor" in piece
    assert plots.INK not in piece
    assert not re.search(r"#000000|#000\b|\bblack\b|#262626|#333333", piece)
    page = ET.fromstring(piece)
    # a path without a fill of its own would be black, whatever the theme
    root = page[0]
    inherited = root.get("fill") or ""
    for glyphs in page.iter(f"{SVG}use"):
        style = glyphs.get("style") or ""
        assert "fill" in style or inherited or _ancestor_has_fill(page, glyphs), ET.tostring(glyphs)
    assert "<style" not in piece  # it would rule the whole page


def _ancestor_has_fill(page: ET.Element, part: ET.Element) -> bool:
    parents = {child: parent for parent in page.iter() for child in parent}
    while part in parents:
        part = parents[part]
        if "fill" in (part.get("style") or "") or part.get("fill"):
            return True
    return False


def test_a_figure_holds_no_date_and_no_version(shown):
    piece = show(shown)
    assert not re.search(r"20\d\d-\d\d-\d\d|<metadata|[Mm]atplotlib v|matplotlib\.org", piece)


def test_a_shown_figure_is_closed(shown):
    before = plt.get_fignums()
    show(shown)
    assert plt.get_fignums() == before


def luminance(colour: str) -> float:
    """Relative luminance after WCAG 2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", plots.PALETTE)
def test_every_colour_of_the_palette_reads_on_white_and_on_the_dark_theme(colour):
    # 3:1 is WCAG's least contrast for graphics; white, and the dark grey of the theme
    for background in ("#ffffff", "#14181e"):
        lighter, darker = sorted([luminance(colour), luminance(background)], reverse=True)
        contrast = (lighter + 0.05) / (darker + 0.05)
        assert contrast >= 3, (background, contrast)


def test_the_style_ends_where_its_block_ends():
    before = dict(matplotlib.rcParams)
    with plots.style():
        assert matplotlib.rcParams["svg.hashsalt"] == "amem"
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["", "Two Words", "1st", "a_b", "a/b", 'x"y', "-a"])
def test_a_name_that_makes_no_id_is_refused(shown, name):
    figure = draw()
    with pytest.raises(ValueError, match=r"^name: found .*, allowed: "):
        plots.show_figure(figure, name, alt="A sine.")
    plt.close(figure)
    assert shown == []


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_words_is_refused(shown, alt):
    figure = draw()
    with pytest.raises(ValueError, match=r"^alt: found .*, allowed: "):
        plots.show_figure(figure, "sine", alt=alt)
    plt.close(figure)
    assert shown == []
