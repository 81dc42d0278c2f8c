"""Claims, their verdicts, and numbers for the prose: what a cell leaves in the executed notebook."""

import html.parser
import itertools
import json

import nbformat
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from myst_nb.ext.glue import extract_glue_data_cell

import amem_core.claims as claims
import amem_core.display
from amem_core.claims import MIME, SHOWS, VERDICTS, check, reconcile, slug, verdict_of
from amem_core.display import glue, show


@pytest.fixture
def shown(monkeypatch):
    """What a chapter displays: (data, metadata) of each output, as Jupyter would store it."""
    outputs = []

    def record(data, raw=False, metadata=None):
        outputs.append(
            (data if raw else data._repr_mimebundle_() if hasattr(data, "_repr_mimebundle_") else data, metadata)
        )

    monkeypatch.setattr(claims, "display", record)
    monkeypatch.setattr(amem_core.display, "display", record)
    monkeypatch.setattr(claims, "_count", type(claims._count)())
    return outputs


class Ids(html.parser.HTMLParser):
    """Ids, links and text of a piece of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.ids, self.links, self.text, self.tags = [], [], "", []
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.tags.append(tag)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named["href"]] if "href" in named else []

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_check_leaves_evidence_that_json_can_hold(shown):
    check("P-7", True, shows="fails", measured=0.5, bound=1.359, tolerance=1e-9, evidence="symbolic", note="w_zz")
    ((data, _),) = shown
    assert json.loads(json.dumps(data[MIME])) == {
        "claim": "P-7", "shows": "fails", "measured": 0.5, "bound": 1.359, "tolerance": 1e-9,
        "evidence": "symbolic", "note": "w_zz", "anchor": "check-p-7-1",
    }  # fmt: skip
    assert data["text/plain"] == "P-7 fails as stated (w_zz, measured 0.5, against 1.359, tolerance 1e-09)"


def test_the_chip_links_to_the_ledger_and_says_what_was_found(shown):
    check("T2′", True, shows="corrected", measured=2.5, note="a < b & c > d")
    page = Ids(shown[0][0]["text/html"])
    assert page.ids == ["check-t2-prime-1"]
    assert page.links == ["ledger.html#t2-prime"]
    assert "T2′ corrected statement holds" in page.text
    assert "a < b & c > d" in page.text
    assert "measured 2.5" in page.text


@given(st.text(alphabet="<>&\"'/= adiv", min_size=1, max_size=30))
def test_no_note_can_break_the_page(note):
    record = {"claim": "P-1", "shows": "holds", "measured": note, "bound": None, "tolerance": None}
    page = Ids(claims.chip({**record, "note": note, "anchor": "check-p-1-1"}))
    assert page.tags == ["div", "a", "span"]
    assert page.ids == ["check-p-1-1"]


def test_every_check_of_a_claim_has_its_own_anchor(shown):
    for claim in ("P-1", "P-1", "P-2", "P-1"):
        check(claim, True)
    anchors = [data[MIME]["anchor"] for data, _ in shown]
    assert anchors == ["check-p-1-1", "check-p-1-2", "check-p-2-1", "check-p-1-3"]


def test_every_status_has_a_chip_of_its_own(shown):
    for shows in SHOWS:
        check("P-1", True, shows=shows)
    texts = [Ids(data["text/html"]).text for data, _ in shown]
    assert len(set(texts)) == len(SHOWS)
    assert all(words in text for words, text in zip(SHOWS.values(), texts, strict=True))


@pytest.mark.parametrize("false", [False, np.bool_(False), torch.tensor(False), sympy.false])
def test_what_does_not_hold_fails_the_cell_and_leaves_nothing(shown, false):
    with pytest.raises(AssertionError, match=r"P-3: .*holds as stated.*measured 2\.0.*too large"):
        check("P-3", false, measured=2.0, note="too large")
    assert shown == []


@pytest.mark.parametrize("true", [True, np.bool_(True), torch.tensor(True), np.array(True), sympy.true])
def test_truth_comes_in_several_kinds(shown, true):
    check("P-3", true)
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (1, 1), (0.25, 0.25), (np.float64(0.5), 0.5), (np.int64(3), 3), (torch.tensor(1.5), 1.5),
        ("exact", "exact"), (sympy.Rational(1, 3), "1/3"), (sympy.Symbol("x") + 1, "x + 1"), (None, None),
    ],
)  # fmt: skip
def test_measured_values_are_kept_plain(shown, value, kept):
    check("P-1", True, measured=value)
    found = shown[0][0][MIME]["measured"]
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("claim_id", {"claim_id": ""}),
        ("claim_id", {"claim_id": " P-1"}),
        ("holds", {"holds": 0.3}),
        ("holds", {"holds": float("nan")}),
        ("holds", {"holds": None}),
        ("holds", {"holds": "yes"}),
        ("holds", {"holds": torch.tensor(1.0)}),
        ("shows", {"shows": "proves"}),
        ("evidence", {"evidence": "hearsay"}),
        ("measured", {"measured": float("nan")}),
        ("bound", {"bound": float("inf")}),
        ("tolerance", {"tolerance": torch.tensor(torch.nan)}),
    ],
)
def test_malformed_checks_are_refused_even_when_the_fact_holds(shown, argument, change):
    with pytest.raises(ValueError, match=f"^{argument}: found .*, allowed: "):
        check(**{"claim_id": "P-1", "holds": True, **change})
    assert shown == []


def test_only_five_sets_of_checks_support_a_verdict():
    supported = {
        frozenset({"holds"}): "holds",
        frozenset({"fails"}): "refuted",
        frozenset({"fails", "corrected"}): "corrected",
        frozenset({"observed"}): "observed",
        frozenset({"absent"}): "not reproduced",
    }
    for size in range(len(SHOWS) + 1):
        for subset in itertools.combinations(SHOWS, size):
            assert verdict_of(set(subset)) == supported.get(frozenset(subset))
    assert set(supported.values()) == set(VERDICTS)


def evidence(*pairs: tuple[str, str]) -> list[dict]:
    return [{"claim": claim, "shows": shows} for claim, shows in pairs]


def test_a_ledger_that_agrees_with_its_checks_has_no_problem():
    ledger = {"P-1": {"verdict": "holds"}, "P-7": {"verdict": "corrected"}, "P-9": {"verdict": "refuted"}}
    found = evidence(("P-1", "holds"), ("P-1", "holds"), ("P-7", "corrected"), ("P-7", "fails"), ("P-9", "fails"))
    assert reconcile(ledger, found) == []
    assert reconcile({}, []) == []


@pytest.mark.parametrize(
    ("ledger", "found", "words"),
    [
        ({"P-1": {"verdict": "holds"}}, [], ["P-1", "no executed check"]),
        ({}, evidence(("P-2", "holds")), ["P-2", "absent from the ledger"]),
        ({"P-1": {"verdict": "holds"}}, evidence(("P-1", "fails")), ["P-1", "ledger says holds", "fails"]),
        ({"P-1": {"verdict": "corrected"}}, evidence(("P-1", "corrected")), ["P-1", "ledger says corrected"]),
        ({"P-1": {"verdict": "holds"}}, evidence(("P-1", "holds"), ("P-1", "fails")), ["P-1", "fails, holds"]),
        ({"P-1": {"verdict": "true"}}, evidence(("P-1", "holds")), ["P-1", "'true'", "holds, corrected"]),
        ({"P-1": {}}, evidence(("P-1", "holds")), ["P-1", "None"]),
    ],
)  # fmt: skip
def test_every_disagreement_is_one_sentence(ledger, found, words):
    (sentence,) = reconcile(ledger, found)
    assert all(word in sentence for word in words), sentence


@given(st.dictionaries(st.sampled_from(["P-1", "P-2", "S-1"]), st.sampled_from(VERDICTS)),
       st.lists(st.tuples(st.sampled_from(["P-1", "P-2", "S-1"]), st.sampled_from(sorted(SHOWS)))))  # fmt: skip
def test_reconciliation_is_silent_exactly_when_each_verdict_follows_from_the_checks(ledger, pairs):
    shown_by = {claim: {shows for name, shows in pairs if name == claim} for claim, _ in pairs}
    agree = set(shown_by) == set(ledger) and all(verdict_of(shown_by[name]) == v for name, v in ledger.items())
    problems = reconcile({name: {"verdict": v} for name, v in ledger.items()}, evidence(*pairs))
    assert (problems == []) == agree


def test_slugs_of_the_ledger_are_distinct_and_fit_for_links():
    names = ["P-1", "P-12", "P-18b", "S-4", "T2'", "T2", "T-LAW", "P-5.1b"]
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(part.isascii() and part == part.lower() and " " not in part for part in slugs)


@pytest.mark.parametrize(
    ("value", "fmt", "text"),
    [(3.14159, ".2f", "3.14"), (1000, ",", "1,000"), (63, "", "63"), (1e-10, ".1e", "1.0e-10")],
)
def test_myst_nb_reads_the_glued_text(shown, value, fmt, text):
    glue("recall", value, fmt)
    ((data, metadata),) = shown
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data=data, metadata=metadata)])
    ((name, output),) = extract_glue_data_cell(cell)
    assert name == "recall"
    assert output["data"]["text/plain"] == repr(text)  # the role strips the quotes of a text
    assert cell.outputs == []  # glued, not shown twice


def test_a_step_shows_its_words_and_then_its_formula(shown):
    x = sympy.Symbol("x")
    show("Where a < b", x**2 / 2)
    (words, _), (formula, _) = shown
    assert "a &lt; b" in words.data
    assert formula.data == r"\displaystyle " + sympy.latex(x**2 / 2)
    show("Alone")
    assert len(shown) == 3
