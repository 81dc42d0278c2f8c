"""The page checks themselves: a faultless page passes, and each fault on a bad page is reported."""

import importlib.util
from pathlib import Path

import pytest

from tests.pages import browser, files
from tests.pages.reader import KINDS, read_site

ROOT = Path(__file__).resolve().parents[2]
HEAD = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<script>MathJax = {{options: {{enableMenu: false, ignoreHtmlClass: "page", processHtmlClass: "math"}}}}</script>
<script defer src="mathjax/tex-chtml.js"></script>
<style>html[data-theme=dark] body {{ background: #111; color: #eee }}
html[data-theme=dark] a {{ color: #9cf }}</style></head>
<body class="page"><main><h1>{title}</h1>
<p>The loss <span class="math notranslate">\\(\\tfrac{{1}}{{2}}\\,x^2\\)</span> falls;
<code>$PATH</code> is code.</p>"""
GOOD = """<h2 id="here">Here</h2><p>Back to <a href="#here">the start</a>, or <a href="bad.html#twice">there</a>.</p>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="one dot" width="9">
<svg role="img" aria-label="a falling line" width="90" height="50"><path d="M0 0L90 50" stroke="currentColor"/></svg>
<div style="overflow-x:auto" tabindex="0"><div style="width:900px">wide, in its own box</div></div>
</main></body></html>"""
# What each line of the bad page must be found as: kind and a part of the message.
FAULTS = {
    '<img src="https://pictures.example/a.png" alt="a picture">': ("off-host", "https://pictures.example/a.png"),
    '<script>fetch("https://data.example/b")</script>': ("off-host", "https://data.example/b"),
    '<script>console.error("quite wrong")</script>': ("errors", "quite wrong"),
    '<script>throw new Error("thrown here")</script>': ("errors", "thrown here"),
    '<img src="no-such-file.png" alt="nothing">': ("errors", "404"),
    '<p class="math notranslate">\\(\\nosuchmacro + 1\\)</p>': ("tex", "nosuchmacro"),
    '<p class="math notranslate">\\(\\frac{1}\\)</p>': ("tex", "TeX error"),
    "<p>A sum $$x + y$$ in dollars</p>": ("markup", "$$x + y$$"),
    "<p>A bracket \\(z\\) left over</p>": ("markup", "\\(z\\)"),
    "<p>A role {claim}`P-1` left over</p>": ("markup", "{claim}"),
    '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">': ("alternatives", "image without"),
    '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="../_images/loss.png">': ("alternatives", "loss.png"),
    '<svg id="mute" width="90" height="50"><path d="M0 0L9 9"/></svg>': ("alternatives", "svg#mute"),
    '<div id="card" style="background:#fff;color:#000;width:200px;height:90px">card</div>': ("dark", "div#card"),
    '<div id="wide" style="width:900px">wide</div>': ("phone", "div#wide"),
    '<p id="dim"><span class="math notranslate" style="mask-image:linear-gradient(#000,#0000)">\\(y\\)</span></p>': (
        "phone",
        "fades though seen whole",
    ),
    '<p style="color:#ccc;background:#fff">pale</p>': ("axe", "color-contrast"),
    "<button></button>": ("axe", "button-name"),
    '<div id="box" style="overflow:auto;width:90px"><i style="padding:99px">box</i></div>': ("phone", "div#box"),
    '<p id="twice"></p><p id="twice"></p>': ("links", "'twice' is given twice"),
    '<a href="#nowhere">lost</a>': ("links", "#nowhere leads to no such anchor"),
    '<a href="good.html#gone">lost</a>': ("links", "good.html#gone leads to no such anchor"),
    '<a href="gone.html">lost</a>': ("links", "gone.html leads to no file"),
    '<a href="/good.html">from the root</a>': ("links", "host's root"),
    '<link rel="stylesheet" href="//fonts.example/f.css">': ("remote", "//fonts.example/f.css"),
    '<p style="background:url(https://tiles.example/t.png)">tiles</p>': ("remote", "https://tiles.example/t.png"),
}


@pytest.fixture(scope="module")
def bad_site(tmp_path_factory) -> Path:
    """Two pages: one without fault, one with every fault."""
    folder = tmp_path_factory.mktemp("site")
    spec = importlib.util.spec_from_file_location("mathjax_ext", ROOT / "book" / "_publish" / "mathjax_ext.py")
    mathjax = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mathjax)
    mathjax.copy_mathjax(folder / "mathjax")
    folder.joinpath("good.html").write_text(HEAD.format(title="Good") + GOOD, encoding="utf-8")
    bad = "\n".join(FAULTS)
    folder.joinpath("bad.html").write_text(f"{HEAD.format(title='Bad')}{bad}</main></body></html>", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def findings(bad_site) -> dict[str, list[str]]:
    """What the checks say of both pages."""
    if not browser.find_chromium():
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    found = read_site(bad_site).found
    return {**found, "links": files.broken_links(bad_site), "remote": files.remote_addresses(bad_site)}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_reported(fault, findings):
    kind, part = FAULTS[fault]
    assert any(part in line for line in findings[kind] if line.startswith("bad.html")), "\n".join(findings[kind])


def test_faultless_page_is_left_alone(findings):
    assert set(KINDS) < set(findings)
    wrong = [line for lines in findings.values() for line in lines if line.startswith("good.html")]
    assert not wrong, "\n".join(wrong)


def test_both_addresses_are_read(findings):
    for kind in ("tex", "errors", "off-host"):
        assert any(line.startswith("bad.html (file)") for line in findings[kind]), f"{kind} from file:// is not seen"
