"""A finger on a handle, as the browser itself sees it: the page must not take the gesture over."""

import pytest

from tests.pages.browser import chromium, find_chromium, serve
from tests.pages.test_explorers import plane_explorer


@pytest.mark.skipif(find_chromium() is None, reason="no chromium on this machine")
@pytest.mark.parametrize(("across", "down"), [(50, 0), (0, -60), (0, 60)])
def test_a_finger_keeps_the_start_for_the_whole_gesture(tmp_path, across, down):
    body = f"<main>{plane_explorer().static_html()}<div style='height: 3000px'></div></main>"
    (tmp_path / "index.html").write_text(f"<!doctype html>{body}", encoding="utf-8")
    with serve(tmp_path) as home, chromium(home) as browser:
        phone = browser.engine.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
        page = phone.new_page()
        page.goto(f"{home}/index.html")
        start = page.locator(".ex [aria-label='start of the descent']")
        start.wait_for()
        page.evaluate("scrollTo(0, 40)")
        before = start.bounding_box()
        x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
        finger = phone.new_cdp_session(page)
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for k in range(1, 13):
            at = {"x": x + across * k / 12, "y": y + down * k / 12}
            finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_function("document.querySelector('.ex').explorer.state.start.some((v) => v !== 0)")
        after = start.bounding_box()
        assert abs(after["x"] - before["x"] - across) < 2 and abs(after["y"] - before["y"] - down) < 2
        assert page.evaluate("scrollY") == 40
