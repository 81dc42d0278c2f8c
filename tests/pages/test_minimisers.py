"""Explorers that mark both minimisers, in a real browser: the same as amem_core's, named and drawn."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from amem_core.explorer import Explorer, planar_explorer, planar_frame, view
from amem_core.explorer.widget import MODULE
from tests.pages.browser import chromium, find_chromium, serve
from tests.pages.test_explorers import LEVELS, drag, problems

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium on this machine")


def forgetting_explorer() -> Explorer:
    """Both minimisers, for three tokens that surround the origin; token 1 is the most frequent and forgotten."""
    return planar_explorer(
        "forgetting",
        angles=[0.0, -math.acos(0.8), math.acos(0.8)],
        targets=[0, 1, 1],
        p=[0.4, 0.3, 0.3],
        rate=1.0,
        steps=20,
        start=[0.8, 1.6],
        minimisers=True,
        title="What is forgotten",
        still=plt.figure(),
        alt="what is forgotten",
        parameters=[],
        views=[
            view("plane", "plane", "plane", radius=2.5, levels=LEVELS),
            view("bars", "freq", "frequencies", bind="p", range=[0, 1]),
        ],
        presets={
            "room": {"angles": [0.0, 1.0, 4.0]},
            "another": {"angles": [0.1, 2.0, -2.0], "targets": [0, 0, 0], "p": [0.2, 0.4, 0.4]},
        },
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minimisers")
    (folder / "index.html").write_text(
        f"<!doctype html><main>{forgetting_explorer().static_html()}</main>", encoding="utf-8"
    )
    with serve(folder) as home, chromium(home) as browser, browser.visit(f"{home}/index.html") as visit:
        yield visit
        assert visit.errors == []


@pytest.fixture(autouse=True)
def fresh(page):
    page.page.locator("button", has_text="reset").click()


def state(page) -> dict:
    return page.page.evaluate("document.querySelector('.ex').explorer.state")


def said(page) -> str:
    return page.page.locator(".ex-said").inner_text()


def expected(page) -> dict:
    """What amem_core finds at the page's state; the page must have the same."""
    here = page.page.evaluate("document.querySelector('.ex').explorer.frame()")["optimum"]
    core = planar_frame(**{k: v for k, v in state(page).items() if k != "cursor"})["optimum"]
    for key in ("forgotten", "given_up"):
        assert here[key] == core[key]
    if core["v"] is not None:
        np.testing.assert_allclose(here["v"], core["v"], rtol=1e-8, atol=1e-10)
    return core


def test_the_minimisers_are_those_of_amem_core(page):
    page.page.evaluate(f"() => {{ {MODULE}; window.planarRun = planarRun; }}")
    seen = {"attained": 0, "none": 0}

    @settings(max_examples=60, phases=[Phase.generate])
    @given(problems(), st.integers(1, 6))
    def same(problem, few):
        angles, targets, p, start = problem
        cut = few if few % 2 else len(p)  # small problems too: most of these can be separated
        given_state = {"angles": angles[:cut], "targets": targets[:cut], "p": p[:cut], "start": list(start)}
        given_state |= {"rate": 1.0, "steps": 1, "minimisers": True}
        here = page.page.evaluate("(s) => planarRun(s)", given_state)["optimum"]
        core = planar_frame(**given_state)["optimum"]
        assert here["least"] == pytest.approx(core["least"], abs=1e-12)
        assert here["given_up"] == core["given_up"]
        seen["none" if core["v"] is None else "attained"] += 1
        if core["v"] is None:
            assert here["v"] is None
            return
        a, b = np.array(here["v"]), np.array(core["v"])
        assert np.abs(a - b).max() <= 1e-8 * max(1.0, np.abs(b).max()) + 1e-15 / flattest(given_state, b)
        assert here["zero_one"] == pytest.approx(core["zero_one"], abs=1e-12)
        assert here["forgotten"] == core["forgotten"]

    same()
    assert min(seen.values()) > 5


def flattest(problem: dict, v: np.ndarray) -> float:
    """Least curvature of the loss at v, by which a rounded slope moves its zero; along a line the one there is."""
    p = np.array(problem["p"]) / sum(problem["p"])
    inputs = np.stack([np.cos(problem["angles"]), np.sin(problem["angles"])], 1)
    signed = (1 - 2 * np.array(problem["targets"]))[:, None] * inputs
    weight = p / (4 * np.cosh(np.clip(signed @ v, -1400, 1400) / 2) ** 2)
    curvatures = np.linalg.eigvalsh((weight[:, None] * signed).T @ signed)
    return curvatures[0] if curvatures[0] > 1e-13 * curvatures[1] else curvatures[1]


def test_what_is_forgotten_is_named_and_marked(page):
    it = page.page.locator(".ex")
    spared = expected(page)["given_up"]
    better = f"forgetting only token {spared[0]} would cost less"
    assert f"forgets token 1 (the most frequent); {better}. Recalled, then lost: token 1" in said(page)
    assert "excess" in said(page)
    assert it.locator(".ex-minimiser").count() == 1
    assert it.locator(".ex-best").count() == 2  # two arcs tie: token 2 or token 3 may be given up
    expected(page)
    bar = it.locator(".ex-grab").nth(0)
    bar.focus()
    for _ in range(4):  # 0.44 is below 4/9, 0.45 above
        page.page.keyboard.press("ArrowUp")
    assert "forgets token 1" in said(page)
    page.page.keyboard.press("ArrowUp")
    assert "forgets token 1" not in said(page)
    it.get_by_role("button", name="room").click()
    assert "No minimiser: separable." in said(page)
    assert it.locator(".ex-minimiser").count() == 0
    assert expected(page)["v"] is None


def test_a_preset_may_change_the_classes_and_its_arrows_can_be_dragged(page):
    it = page.page.locator(".ex")
    it.get_by_role("button", name="another").click()
    it.scroll_into_view_if_needed()
    angle = state(page)["angles"][1]
    assert angle == 2.0
    drag(page, it.locator("[aria-label='embedding of token 2']"), -20, 0)
    assert 0.05 < state(page)["angles"][1] - angle < 0.6  # a little further round, not on the other side
    expected(page)
