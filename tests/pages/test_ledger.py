"""The ledger page: claims.yml read strictly, evidence shown, disagreements stop the build, nothing stale."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from amem_core.claims import MIME

ROOT = Path(__file__).resolve().parents[2]
PUBLISH = ROOT / "book" / "_publish"
CLAIMS = {
    "P-1": {
        "title": "The loss is convex in $W$",
        "source": "[CSB24] Section 2",
        "statement": "For every $x$:\n\n$$\nL(W) = 1\n$$\n",
        "hypotheses": "$p(x) \\ge 0$",
        "verdict": "holds",
        "faithful": True,
        "uses": [],
        "chapter": "01-first",
    },
    "T2′": {
        "title": "Margins grow",
        "source": "[CSB24] Theorem 2",
        "statement": "$m_t \\ge \\log(1+at)$",
        "hypotheses": "$a > 0$",
        "verdict": "corrected",
        "corrected": "$m_t \\ge \\log(1+at) - 1$",
        "faithful": "Our constant is named.",
        "uses": ["P-1"],
        "chapter": "01-first",
    },
}


def evidence(claim: str, shows: str, anchor: str, measured: float = 0.25) -> dict:
    """What a check leaves behind."""
    numbers = {"measured": measured, "bound": 0.5, "tolerance": None}
    return {"claim": claim, "shows": shows, **numbers, "evidence": "numerical", "note": "a note", "anchor": anchor}


CHECKS = [
    evidence("P-1", "holds", "check-p-1-1"),
    evidence("T2′", "fails", "check-t2-prime-1"),
    evidence("T2′", "corrected", "check-t2-prime-2"),
]


def notebook(records: list[dict]) -> str:
    """An executed chapter with these checks."""
    outputs = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {MIME: record, "text/html": f'<div id="{record["anchor"]}">chip</div>', "text/plain": "chip"},
        }
        for record in records
    ]
    words = "# First chapter\n\nSee {claim}`P-1` and {claim}`T2′`."
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": words},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": "1", "execution_count": 1, "outputs": outputs},
    ]
    language = {"language_info": {"name": "python"}}
    return json.dumps({"cells": cells, "metadata": language, "nbformat": 4, "nbformat_minor": 5})


def write(folder: Path, claims: object = CLAIMS, checks: list[dict] = CHECKS) -> None:
    """A small book: one executed chapter, its claims, its ledger."""
    for name in ("book", "executed"):
        (folder / name).mkdir(exist_ok=True)
        if name == "executed" or not (folder / "book/01-first.ipynb").exists():
            (folder / name / "01-first.ipynb").write_text(notebook(checks), encoding="utf-8")
    text = claims if isinstance(claims, str) else yaml.safe_dump(claims, allow_unicode=True, sort_keys=False)
    (folder / "book" / "claims.yml").write_text(text, encoding="utf-8")


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Read a small book's ledger; gives its problems."""
    monkeypatch.syspath_prepend(str(PUBLISH))
    import ledger_data

    def problems(claims: object = CLAIMS, checks: list[dict] = CHECKS) -> list[str]:
        write(tmp_path, claims, checks)
        return ledger_data.load(tmp_path / "book" / "claims.yml", tmp_path / "executed").problems

    return problems


def changed(claim: str, **fields) -> dict:
    """The claims with some fields of one changed; None removes a field."""
    claims = copy.deepcopy(CLAIMS)
    claims[claim].update(fields)
    claims[claim] = {name: value for name, value in claims[claim].items() if value is not None}
    return claims


def test_agreeing_claims_and_checks_leave_no_problem(load):
    assert load() == []


@pytest.mark.parametrize(
    ("claims", "part"),
    [
        (changed("P-1", hypotheses=None), "claim P-1: the field 'hypotheses' is missing"),
        (changed("P-1", remark="new"), "claim P-1: the field 'remark' is not known"),
        (changed("P-1", title=7), "claim P-1: 'title' must be a text, not 7"),
        (changed("P-1", verdict="true"), "verdict 'true'"),
        (changed("P-1", faithful=False), "'faithful' must be yes or a sentence, not False"),
        (changed("P-1", uses="T2′"), "'uses' must be a list"),
        (changed("P-1", uses=["P-9"]), "claim P-1: it uses 'P-9', which is no claim"),
        (changed("P-1", uses=["P-1"]), "claim P-1: it uses itself"),
        (changed("P-1", corrected="$x$"), "nothing 'corrected' to state"),
        (changed("P-1", chapter="09-none"), "claim P-1: its chapter '09-none' is not among the executed notebooks"),
        (changed("T2′", corrected=None), "a statement 'corrected' is needed"),
        ({**CLAIMS, "p-1": CLAIMS["P-1"]}, "claim p-1: its anchor #p-1 is that of P-1"),
        ({"P-1": "holds"}, "claim P-1: the entry must be a mapping, not str"),
        ("P-1: {}\nP-1: {}\n", "the key 'P-1' appears twice"),
        ("- P-1\n", "must map claim ids to entries, not be list"),
        ("P-1: [", "is not valid YAML"),
        (changed("P-1", verdict="refuted"), "P-1: the ledger says refuted, the executed checks show holds"),
    ],
)
def test_a_faulty_entry_is_named(claims, part, load):
    assert any(part in line for line in load(claims)), load(claims)


def test_claims_and_checks_must_pair(load):
    assert any("P-1" in line for line in load(checks=CHECKS[1:]))
    assert any("P-5" in line for line in load(checks=[*CHECKS, evidence("P-5", "holds", "check-p-5-1")]))


def sphinx(folder: Path) -> tuple[int, str]:
    """Build the small book with warnings as errors, keeping what an earlier build left."""
    options = ["-W", "-n", "--keep-going", "-q", "-b", "html", str(folder), str(folder / "html")]
    command = [sys.executable, "-m", "sphinx", *options]
    core = folder / "package" / "amem_core"  # claims.py alone: the whole package would import torch at each build
    core.mkdir(parents=True, exist_ok=True)
    (core / "__init__.py").touch()
    shutil.copy(ROOT / "amem_core" / "claims.py", core)
    setting = {**os.environ, "PYTHONPATH": str(core.parent), "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=setting)
    return done.returncode, done.stdout + done.stderr


CONF = f"""
import sys
sys.path.insert(0, {str(PUBLISH)!r})
project = "small"
extensions = ["myst_nb", "ledger_ext", "mathjax_ext"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"
exclude_patterns = ["executed", "html", "jupyter_execute", "package"]
amem_executed = "executed"
root_doc = "book/ledger"
"""
LEDGER = "# Ledger\n\n```{toctree}\n01-first\n```\n\n```{ledger}\n```\n"


def test_the_page_shows_the_evidence_and_is_never_stale(tmp_path):
    write(tmp_path)
    (tmp_path / "conf.py").write_text(CONF, encoding="utf-8")
    (tmp_path / "book" / "ledger.md").write_text(LEDGER, encoding="utf-8")
    page, chapter = tmp_path / "html" / "book" / "ledger.html", tmp_path / "html" / "book" / "01-first.html"

    status, log = sphinx(tmp_path)
    assert status == 0, log
    text = page.read_text(encoding="utf-8")
    for part in (
        'id="p-1"', 'id="t2-prime"', "2 claims", "3 executed checks: 3 numerical", "First chapter", "measured 0.25",
        'href="01-first.html#check-t2-prime-2"', 'href="#p-1"', "L(W) = 1", "Our constant is named.",
    ):  # fmt: skip
        assert part in text, part
    assert "$" not in text.split("<article")[-1].split("<body")[-1].split("<footer")[0].replace("${", "")
    assert 'href="ledger.html#t2-prime"' in chapter.read_text(encoding="utf-8")
    assert (tmp_path / "html" / "_static" / "mathjax" / "tex-chtml.js").is_file()

    # Only the evidence changes: the page follows, and the claim that it contradicts is named.
    refuted = [evidence("P-1", "fails", "check-p-1-1", measured=0.125), *CHECKS[1:]]
    write(tmp_path, checks=refuted)
    status, log = sphinx(tmp_path)
    assert status == 1 and "P-1: the ledger says holds, the executed checks show fails" in log
    assert "measured 0.125" in page.read_text(encoding="utf-8")

    # The claim follows the evidence: the chips of every chapter follow the claim.
    write(tmp_path, changed("P-1", verdict="refuted"), refuted)
    (tmp_path / "book" / "ledger.md").write_text(LEDGER + "\n{claim}`P-77`\n", encoding="utf-8")
    status, log = sphinx(tmp_path)
    assert "✗</span> refuted" in chapter.read_text(encoding="utf-8")
    assert "the ledger says" not in log
    assert status == 1 and "{claim} names 'P-77', which is no claim" in log
