"""One reading of a built site in the browser: every page, over http and from file://, every finding by kind."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.pages import browser, files

PHONE = 390  # CSS pixels
KINDS = {
    "off-host": "requests to another host",
    "errors": "console errors, exceptions, failed loads",
    "tex": "formulas that MathJax could not typeset",
    "markup": "TeX or MyST left as text",
    "alternatives": "pictures without alternative text",
    "dark": "light cards in the dark theme",
    "phone": "wider than a phone's window, scrolling only by mouse, or fading though whole",
    "axe": "WCAG A and AA faults",
}
# Faults of the theme's own parts, which the book does not write: (axe rule, where, why it is left).
THEME_FAULTS: list[tuple[str, str, str]] = []


@dataclass
class Report:
    """Everything found on the pages, by kind; each line names its page."""

    found: dict[str, list[str]] = field(default_factory=dict)
    weights: dict[str, set[Path]] = field(default_factory=dict)
    pages: list[str] = field(default_factory=list)

    def add(self, kind: str, name: str, lines: list[str]) -> None:
        """Keep the lines of one kind for one page."""
        self.found.setdefault(kind, []).extend(f"{name}: {line}" for line in dict.fromkeys(lines))


def axe_lines(faults: list[dict]) -> list[str]:
    """The faults that are the book's own."""
    return [
        f"{fault['rule']} ({fault['help']}): {fault['target']} {fault['html']}"
        for fault in faults
        if not any(fault["rule"] == rule and re.search(where, fault["target"]) for rule, where, _ in THEME_FAULTS)
    ]


def shoot(visit: browser.Visit, folder: Path | None, name: str) -> None:
    """Keep a picture of the whole page."""
    if folder:
        visit.page.screenshot(path=folder / f"{name}.png", full_page=True, timeout=120_000)


def read_page(visit: browser.Visit, name: str, report: Report, shots: Path | None) -> None:
    """Every check of one open page: light, dark, and on a phone."""
    label = name.removesuffix(".html").replace("/", "-")
    visit.theme("light")
    shoot(visit, shots, f"{label}-light")
    visit.probe("unfold")
    visit.probe("settle")
    report.add("tex", name, visit.probe("tex"))
    report.add("markup", name, visit.probe("rawTex"))
    report.add("alternatives", name, visit.probe("alternatives"))
    visit.page.evaluate(browser.AXE)
    report.add("axe", name, axe_lines(visit.probe("axe")))
    visit.theme("dark")
    report.add("dark", name, visit.probe("lightCards"))
    report.add("axe", f"{name} (dark)", axe_lines(visit.probe("axe", ["color-contrast"])))
    shoot(visit, shots, f"{label}-dark")
    visit.theme("light")
    visit.width(PHONE)
    visit.probe("settle")  # the observers of sizes have spoken
    report.add("phone", name, visit.probe("overflow"))
    report.add("phone", name, visit.probe("mouseOnly"))
    report.add("phone", name, visit.probe("faded"))
    shoot(visit, shots, f"{label}-phone")


def read_share(folder: Path, shots: Path | None, paths: list[Path]) -> Report:
    """Open these pages over http and from file:// in a browser of their own."""
    report = Report()
    with browser.serve(folder) as home, browser.chromium(home) as chromium:
        for path in paths:
            name = path.relative_to(folder).as_posix()
            report.pages.append(name)
            with chromium.visit(f"{home}/{name}") as visit:
                report.weights[name] = {browser.served_file(url, home, folder) for url in visit.loaded} - {None}
                formulas = visit.probe("formulas")
                read_page(visit, name, report, shots)
                report.add("errors", name, visit.errors)
                report.add("off-host", name, visit.off_host)
            with chromium.visit(path.resolve().as_uri()) as visit:
                report.add("tex", f"{name} (file)", visit.probe("tex"))
                if visit.probe("formulas") != formulas:
                    report.add("tex", f"{name} (file)", [f"{formulas} formulas over http, not as many from file://"])
                report.add("errors", f"{name} (file)", visit.errors)
                report.add("off-host", f"{name} (file)", visit.off_host)
    return report


def read_site(folder: Path, shots: Path | None = None, browsers: int = 2) -> Report:
    """Read every page, shared out between browsers; redirects are followed by the link check alone."""
    paths = [path for path in files.pages(folder) if not files.parsed(path).redirect]
    shares = [share for k in range(browsers) if (share := paths[k::browsers])]
    with ThreadPoolExecutor(browsers) as threads:
        parts = list(threads.map(partial(read_share, folder, shots), shares))
    whole = Report()
    for part in parts:
        whole.pages += part.pages
        whole.weights |= part.weights
        for kind, lines in part.found.items():
            whole.found.setdefault(kind, []).extend(lines)
    return whole
