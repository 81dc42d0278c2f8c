"""The built pages in a real browser with the network shut: what a reader meets, over http and from file://.

`make test` builds the pages first. AMEM_HTML names another folder of built pages, AMEM_CHROMIUM another browser;
with AMEM_REQUIRE_BROWSER=1 a missing browser or book is a failure, not a skip.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.pages import browser, files
from tests.pages.reader import KINDS, Report, read_site

ROOT = Path(__file__).resolve().parents[1]
HTML = Path(os.environ.get("AMEM_HTML", ROOT / "build" / "_build" / "html"))
SCREENSHOTS = ROOT / "build" / "screenshots"
FIRST_LOAD, LATER_PAGE = 1_400_000, 150_000  # bytes, gzipped
SHARED = {"_static", "_sphinx_design_static"}  # folders whose files one page loads for all

# From file:// a browser refuses fetch(), so the search page lists titles without the excerpts it would fetch.
FILE_SEARCH = re.compile(r"from origin 'null' has been blocked|net::ERR_FAILED|Failed to fetch")


def needed(thing: object, reason: str) -> None:
    """Skip where something is missing, or fail where the run promised it."""
    if not thing:
        (pytest.fail if os.environ.get("AMEM_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)


@pytest.fixture(scope="module")
def chromium_here():
    """The system's browser."""
    needed(browser.find_chromium(), "no Chromium on this machine (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def html() -> Path:
    """The folder of the built pages."""
    needed((HTML / "index.html").is_file(), "the pages are not built: run make book")
    return HTML


@pytest.fixture(scope="module")
def report(chromium_here, html) -> Report:
    """One reading of the whole site, shared by the tests below."""
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    SCREENSHOTS.mkdir(parents=True)
    return read_site(html, SCREENSHOTS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_has(kind, report):
    assert len(report.pages) >= 3, f"only these pages were opened: {report.pages}"
    lines = report.found[kind]
    assert not lines, f"{KINDS[kind]}:\n" + "\n".join(lines)


def test_every_internal_link_and_anchor_exists(html):
    assert not (broken := files.broken_links(html)), "\n".join(broken)


def test_no_file_names_another_host_to_load_from(html):
    assert not (remote := files.remote_addresses(html)), "\n".join(remote)


def test_every_page_names_an_icon(html):
    """Without one a browser asks for /favicon.ico, and its console says that there is none."""
    for page in html.glob("book/*.html"):
        icon = re.search(r'<link rel="icon" href="([^"]+)"', page.read_text(encoding="utf-8"))
        assert icon and (page.parent / icon[1]).is_file(), page.name


def test_pages_are_light_to_load(report):
    """Whichever page comes first stays within the first budget; what a page adds to the shared files, in the second."""
    for name, loaded in report.weights.items():
        own = [path for path in loaded if path.name != "searchindex.js" and not SHARED & set(path.parts)]
        whole, own = sum(map(files.gzipped, loaded)), sum(map(files.gzipped, own))
        assert whole <= FIRST_LOAD, f"{name} loads {whole} bytes gzipped, allowed {FIRST_LOAD}"
        assert own <= LATER_PAGE, f"{name} adds {own} bytes gzipped to the shared files, allowed {LATER_PAGE}"


def test_search_finds_a_chapter_over_http_and_from_a_file(chromium_here, html):
    chapter = next(path for path in files.pages(html) if re.match(r"\d\d-", path.name))
    word = max(re.findall(r"[A-Za-z]+", files.parsed(chapter).title), key=len)
    with browser.serve(html) as home, browser.chromium(home) as chromium:
        for start in (home, html.resolve().as_uri()):
            with chromium.visit(f"{start}/search.html?q={word}") as visit:
                hits = visit.page.locator("#search-results li a")
                hits.first.wait_for()
                links = [hit.get_attribute("href") for hit in hits.all()]
                assert any(chapter.name in link for link in links), f"{word}: {links}"
                assert not visit.off_host
                allowed = FILE_SEARCH if start.startswith("file:") else re.compile(r"(?!)")
                assert not [line for line in visit.errors if not allowed.search(line)]


def test_every_explorer_of_the_book_answers(chromium_here, html):
    """A key on its first slider or button redraws it and changes what it says; a preset and reset bring it back."""
    chapters = [path for path in files.pages(html) if re.match(r"\d\d-", path.name)]
    with browser.serve(html) as home, browser.chromium(home) as chromium:
        for path in chapters:
            with chromium.visit(f"{home}/book/{path.name}") as visit:
                explorers = visit.page.locator(".ex").all()
                assert explorers, f"{path.name} has no living explorer"
                for it in explorers:
                    assert it.locator("xpath=ancestor::*[@class='amem-explorer']").count() == 1, (
                        f"{path.name}: {it} is out of place"
                    )
                    first = it.locator(".ex-said").inner_text(), it.get_attribute("data-drawn")
                    slider = it.locator("input[type=range]").first
                    other = it.locator('.ex-ticks button[aria-pressed="false"]').last
                    if slider.count():
                        slider.press("End" if slider.input_value() == slider.get_attribute("min") else "Home")
                    else:
                        other.click()
                    moved = it.locator(".ex-said").inner_text(), it.get_attribute("data-drawn")
                    assert moved[0] != first[0] and int(moved[1]) > int(first[1]), path.name
                    for preset in it.locator(".ex-presets button").all():
                        preset.click()
                        assert preset.get_attribute("aria-pressed") == "true", f"{path.name}: {preset.inner_text()}"
                    it.get_by_role("button", name="reset").click()
                    assert it.locator(".ex-said").inner_text() == first[0]
                    assert it.locator(".ex-message").is_hidden()
                assert not visit.errors and not visit.off_host


def test_every_chapter_has_what_a_reader_looks_for(html):
    for path in files.pages(html):
        if files.parsed(path).redirect:
            continue
        text = path.read_text(encoding="utf-8")
        assert 'http-equiv="Content-Security-Policy" content="default-src \'self\'' in text, path.name
        if re.match(r"\d\d-", path.name):
            for what in ("colab.research.google.com/github", "/edit/", "prev-next-footer", "page-toc", ".ipynb"):
                assert what in text, f"{path.name} lacks {what}"
