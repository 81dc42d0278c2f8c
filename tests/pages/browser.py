"""A real browser without a network: it opens pages of one folder and records what they do."""

import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from axe_playwright_python.base import AXE_SCRIPT as AXE
from playwright.sync_api import sync_playwright

PROBES = (Path(__file__).parent / "probes.js").read_text(encoding="utf-8")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Only this machine's own address resolves, whatever a page asks for.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"


def find_chromium() -> str | None:
    """The browser of the system, or the one that AMEM_CHROMIUM names."""
    given = os.environ.get("AMEM_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not write to the log."""

    def log_message(self, *args) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path):
    """Serve `folder` on a free port of this machine; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Visit:
    """What one page did while it was open."""

    page: object
    off_host: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def probe(self, name: str, argument=None):
        """Run one probe of probes.js in the page."""
        return self.page.evaluate(f"(value) => ({PROBES}).{name}(value)", argument)

    def theme(self, name: str) -> None:
        """Switch to the light or the dark theme."""
        self.page.evaluate("(name) => { document.documentElement.dataset.theme = name }", name)
        self.probe("settle")

    def width(self, pixels: int, height: int = 800) -> None:
        """Resize the window."""
        self.page.set_viewport_size({"width": pixels, "height": height})
        self.page.wait_for_function(f"innerWidth === {pixels}")
        self.probe("settle")  # laid out anew ...
        self.probe("settle")  # ... and what watches sizes has answered


class Browser:
    """Chromium with one context whose network is shut."""

    def __init__(self, engine, home: str):
        self.engine, self.home = engine, home
        self.context = engine.new_context(
            viewport={"width": 1280, "height": 800}, service_workers="block", reduced_motion="reduce"
        )
        self.context.set_default_timeout(15_000)

    def own(self, url: str) -> bool:
        """Whether the address lies inside the page or on this machine."""
        scheme = urlsplit(url).scheme
        return scheme in ("data", "blob", "file", "about") or url.startswith(self.home + "/")

    @contextmanager
    def visit(self, url: str):
        """Open a page, wait until it is typeset, give the record, close it."""
        page = self.context.new_page()
        visit = Visit(page)

        def gate(route) -> None:
            url = route.request.url
            if self.own(url):
                visit.loaded.append(url)
                route.continue_()
            else:
                visit.off_host.append(url)
                route.abort()

        page.route("**/*", gate)
        page.on("websocket", lambda socket: visit.off_host.append(socket.url))
        page.on("console", lambda said: visit.errors.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: visit.errors.append(f"exception: {error}"))
        page.on("response", lambda got: visit.errors.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
        try:
            page.goto(url, wait_until="load")
            page.add_style_tag(content=STILL)
            visit.probe("settle")
            yield visit
        finally:
            page.close()


@contextmanager
def chromium(home: str):
    """Start the system's browser for the pages served at `home`."""
    with sync_playwright() as tools:
        engine = tools.chromium.launch(executable_path=find_chromium(), headless=True, args=FLAGS)
        try:
            yield Browser(engine, home)
        finally:
            engine.close()


def served_file(url: str, home: str, folder: Path) -> Path | None:
    """The file behind an address of our server."""
    if not url.startswith(home + "/"):
        return None
    path = folder / unquote(urlsplit(url).path).lstrip("/")
    return path / "index.html" if path.is_dir() else path


__all__ = ["AXE", "Browser", "Visit", "chromium", "find_chromium", "serve", "served_file"]
