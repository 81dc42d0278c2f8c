"""How long a move of the hand takes to reach the picture, in headless Chromium."""

import pytest

from tests.pages.browser import chromium, find_chromium, serve
from tests.pages.test_explorers import plane_explorer

MOVES = """() => {
    const e = document.querySelector(".ex").explorer, times = [];
    for (let k = 0; k < 120; k++) {
        const before = performance.now();
        e.context.set({ angles: [0.01 * k, 1] });
        document.querySelector(".ex").getBoundingClientRect();  // layout included
        times.push(performance.now() - before);
    }
    return times.sort((a, b) => a - b);
}"""


@pytest.mark.skipif(find_chromium() is None, reason="no chromium on this machine")
def test_a_move_redraws_all_views_in_time(tmp_path, benchmark):
    (tmp_path / "index.html").write_text(
        f"<!doctype html><main>{plane_explorer().static_html()}</main>", encoding="utf-8"
    )
    with serve(tmp_path) as home, chromium(home) as browser, browser.visit(f"{home}/index.html") as visit:
        times = benchmark.pedantic(lambda: visit.page.evaluate(MOVES), rounds=1)
    print(f"\nredraw of four views while an embedding is dragged: median {times[60]:.1f} ms, worst {times[-1]:.1f} ms")
    assert times[60] < 16
    assert times[-1] < 50
