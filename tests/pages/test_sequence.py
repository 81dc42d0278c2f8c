"""A sequence and what its characters read: by mouse, by keyboard, by finger, in words, and across views."""

import matplotlib.pyplot as plt
import pytest

from amem_core.explorer import Explorer, Parameter, view
from tests.pages.browser import chromium, find_chromium, serve

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium on this machine")

TEXT = list("a cab␣a c") * 4
MARKS = [{"a": 1, " ": -1, "c": 2}.get(c, 0) for c in TEXT]


def reads(layer: int, step: int) -> list:
    """Everyone reads the one `layer` places before, and itself a little more with every step."""
    return [[[max(k - layer, 0), 90 - 10 * step], [k, 10 * step]] for k in range(len(TEXT))]


def frame(step: int) -> dict:
    """Two layers at one step of training."""
    shared = {"tokens": TEXT, "marks": MARKS}
    second = shared | {"reads": reads(2, step), "predicted": [*TEXT[1:], "x"]}
    return {"one": shared | {"reads": reads(1, step)}, "two": second, "regime": f"step {step}"}


@pytest.fixture(scope="module")
def body() -> str:
    return Explorer(
        "text",
        title="Who reads whom?",
        still=plt.figure(),
        alt="a text",
        parameters=[Parameter("step", "training step", [1, 2, 3], 1)],
        views=[view("sequence", "one", "layer 1"), view("sequence", "two", "layer 2")],
        simulate=frame,
        steps=len(TEXT) - 1,
    ).static_html()


@pytest.fixture(scope="module")
def site(tmp_path_factory, body):
    """The browser and the page's address."""
    folder = tmp_path_factory.mktemp("sequence")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    tail = f"<title>t</title><main>{body}</main><div style='height: 2000px'></div></html>"
    (folder / "index.html").write_text(head + tail, encoding="utf-8")
    with serve(folder) as home, chromium(home) as browser:
        yield browser, f"{home}/index.html"


@pytest.fixture(scope="module")
def page(site):
    browser, address = site
    with browser.visit(address) as visit:
        yield visit.page
        assert visit.errors == [] and visit.off_host == []


@pytest.fixture(autouse=True)
def fresh(page):
    page.mouse.move(0, 0)
    page.get_by_role("button", name="reset").click()


def said(page) -> list[str]:
    """The legends of both layers; a screen reader hears the same."""
    words = page.locator(".ex-reads").all_inner_texts()
    assert words == [text.get_attribute("aria-valuetext") for text in page.locator(".ex-text").all()]
    return words


def here(page) -> list[int]:
    """The number of the outlined character in each view, from 1."""
    every = "(texts) => texts.map((text) => [...text.children].findIndex((c) => c.className === 'ex-here') + 1)"
    numbers = page.locator(".ex-text").evaluate_all(every)
    assert numbers == [int(text.get_attribute("aria-valuenow")) for text in page.locator(".ex-text").all()]
    return numbers


def tinted(page, view: int) -> list[int]:
    """Positions with a tint, from 1."""
    return (
        page.locator(".ex-text")
        .nth(view)
        .evaluate("(text) => [...text.children].flatMap((c, k) => c.style.backgroundColor ? [k + 1] : [])")
    )


def test_opens_on_the_last_character_and_shows_the_rules(page):
    n = len(TEXT)
    assert here(page) == [n, n]
    assert tinted(page, 0) == [n - 1, n] and tinted(page, 1) == [n - 2, n]
    assert said(page)[1] == f"“c” at {n} reads “a” at {n - 2} (80%), “c” at {n} (10%); others 10%. Next: “x”."
    borders = "(text) => [...text.children].slice(0, 4).map((c) => getComputedStyle(c).borderBottomStyle)"
    assert page.locator(".ex-text").nth(0).evaluate(borders) == ["solid", "dotted", "solid", "solid"]
    colours = "(text) => [...text.children].slice(0, 4).map((c) => getComputedStyle(c).borderBottomColor)"
    first, output, second, again = page.locator(".ex-text").nth(0).evaluate(colours)
    assert first == output == again != second


def test_hovering_moves_every_layer(page):
    page.locator(".ex-text").nth(0).locator("span").nth(5).hover()
    assert here(page) == [6, 6] and tinted(page, 0) == [5, 6] and tinted(page, 1) == [4, 6]
    assert said(page)[0].startswith("“␣” at 6 reads “b” at 5 (80%)")
    page.locator(".ex-text").nth(1).locator("span").nth(0).hover()
    assert here(page) == [1, 1]


def test_arrow_keys_move_the_focused_character(page):
    text = page.locator(".ex-text").nth(1)
    text.focus()
    for key, at in (("ArrowLeft", 35), ("Shift+ArrowLeft", 25), ("ArrowUp", 24), ("ArrowDown", 25), ("ArrowRight", 26)):
        page.keyboard.press(key)
        assert here(page) == [at, at], key
    assert text.evaluate("(e) => getComputedStyle(e).outlineStyle") == "solid"  # focus is seen
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowRight")
    assert here(page) == [36, 36]  # the end


def test_the_training_step_keeps_the_character(page):
    page.locator(".ex-text").nth(0).locator("span").nth(5).hover()
    page.locator("input[type=range]").press("End")
    assert here(page) == [6, 6] and "(60%)" in said(page)[0] and "step 3" in page.locator(".ex-said").inner_text()


def test_play_walks_along_the_text(page):
    step = page.get_by_role("button", name="step", exact=True)
    step.click()  # from the end back to the start
    assert here(page) == [1, 1]
    step.click()
    assert here(page) == [2, 2]


def test_a_view_without_data_is_hidden_and_comes_back(page):
    second = page.locator(".ex-view").nth(1)
    swap = """() => {
        const { frame, context } = document.querySelector(".ex").explorer, now = frame();
        if (now.two) { window.kept = now.two; delete now.two; } else now.two = window.kept;
        context.redraw();
    }"""
    page.evaluate(swap)
    assert second.is_hidden() and page.locator(".ex-message").is_hidden()
    page.evaluate(swap)
    assert second.is_visible()


@pytest.mark.parametrize("pair", [[3, 10], [-1, 10], [0, -5], [0, None]])
def test_bad_attention_is_said_inside_the_figure(page, pair):
    words = page.evaluate(
        """(pair) => {
            const root = document.querySelector(".ex"), { frame, context } = root.explorer, kept = frame().one.reads;
            frame().one.reads = kept.map(() => [pair]);
            context.setCursor(0);
            frame().one.reads = kept;
            return root.querySelector(".ex-message").textContent;
        }""",
        pair,
    )
    assert "cannot be drawn" in words and "attention" in words


def test_a_finger_reads_along_and_still_scrolls_the_page(site):
    browser, address = site
    phone = browser.engine.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = phone.new_page()
    page.goto(address)
    cells = page.locator(".ex-text").nth(0).locator("span")
    cells.first.wait_for()
    boxes = [cells.nth(k).bounding_box() for k in (2, 8)]
    (x, y), (far, _) = ((b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in boxes)
    finger = phone.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": a, "y": b} for a, b in points]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (x, y))
    page.wait_for_function("document.querySelector('.ex-text').getAttribute('aria-valuenow') === '3'")
    for k in range(1, 11):
        touch("touchMove", (x + (far - x) * k / 10, y))
    touch("touchEnd")
    page.wait_for_function("document.querySelector('.ex-text').getAttribute('aria-valuenow') === '9'")
    assert page.evaluate("scrollY") == 0
    touch("touchStart", (x, y))
    for k in range(1, 21):
        touch("touchMove", (x, y - 10 * k))
    touch("touchEnd")
    page.wait_for_function("scrollY > 50")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def test_many_alike_are_tinted_and_not_named(page):
    """Those that are read as much as one left out have no name; none is named where all are read alike."""
    swap = """(pairs) => {
        const { frame, context } = document.querySelector(".ex").explorer, one = frame().one;
        window.before ??= one.reads;
        one.reads = pairs ? [...window.before.slice(0, -1), pairs] : window.before;
        context.redraw();
    }"""
    n = len(TEXT)
    page.evaluate(swap, [[0, 20], [2, 12], [3, 4], [4, 4], [6, 4], [7, 4], [8, 3]])
    assert tinted(page, 0) == [1, 3, 4, 5, 7, 8, 9]
    assert said(page)[0] == f"“c” at {n} reads “a” at 1 (20%), “c” at 3 (12%); others 68%."
    page.evaluate(swap, [[k, 2] for k in range(n)])
    assert said(page)[0] == f"“c” at {n} reads no character with more than 2%."
    page.evaluate(swap, None)


def test_next_is_said_only_where_it_was_asked_for(page):
    blank = """(at) => {
        const { frame, context } = document.querySelector(".ex").explorer;
        frame().two.predicted[at] = "";
        context.redraw();
    }"""
    page.evaluate(blank, 5)
    page.locator(".ex-text").nth(0).locator("span").nth(5).hover()
    assert "Next" not in said(page)[1]
    page.locator(".ex-text").nth(0).locator("span").nth(6).hover()
    assert f"Next: “{TEXT[7]}”" in said(page)[1]
