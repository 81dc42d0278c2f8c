"""The explorer's Python side: what it refuses, what it computes, what it leaves in a page."""

import json
import math
import re

import matplotlib.pyplot as plt
import pytest

from amem_core.explorer import Explorer, Parameter, planar_explorer, planar_frame, view


def double(d: int) -> dict:
    """A frame whose numbers follow from ``d`` by hand."""
    series = [{"name": "line", "x": [0, 1], "y": [d, 2 * d], "color": "#2f7fc1"}]
    return {"curve": {"series": series}, "regime": "large" if d > 8 else "small", "readout": [["d", d]]}


def explorer(**changes) -> Explorer:
    """A table explorer, with some arguments replaced."""
    arguments = {
        "title": "Doubling",
        "still": plt.figure(),
        "alt": "a line",
        "parameters": [Parameter("d", "dimension", [4, 8, 16], 8)],
        "views": [view("lines", "curve", "curve")],
        "simulate": double,
    }
    return Explorer("doubling", **(arguments | changes))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Parameter("d", "dimension", [4], 4), "values"),
        (lambda: Parameter("d", "dimension", [4, 4], 4), "values"),
        (lambda: Parameter("d", "dimension", [4, float("nan")], 4), "values"),
        (lambda: Parameter("d", "dimension", [0, 4], 4, log=True), "values"),
        (lambda: Parameter("d", "dimension", [4, 8], 5), "start"),
        (lambda: Parameter("d", "dimension", [4, 8], 4, ticks={"seven": 7}), "seven"),
        (lambda: view("pie", "curve", "curve"), "kind"),
        (lambda: explorer(presets={"far": {"d": 32}}), "d"),
        (lambda: explorer(alt=" "), "alt"),
        (lambda: explorer(simulate=lambda d: {"curve": float("inf")}), "frame"),
        (lambda: planar_frame([0.0], [0], [-1.0], 1.0, 1, [0.0, 0.0]), "p"),
        (lambda: planar_frame([0.0], [0], [1.0], -1.0, 1, [0.0, 0.0]), "rate"),
    ],
)
def test_bad_declarations_are_refused(make, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: found .*allowed: "):
        make()


def test_the_page_holds_a_frame_for_every_value_and_the_kernel_answers_for_any():
    it = explorer()
    assert {k: f["curve"]["series"][0]["y"] for k, f in it.spec["frames"].items()} == {
        "0": [4, 8],
        "1": [8, 16],
        "2": [16, 32],
    }
    it.request = {"state": {"d": 5, "cursor": 1}, "number": 7}
    assert it.reply["number"] == 7
    assert it.reply["frame"]["curve"]["series"][0]["y"] == [5, 10]


def test_a_question_that_cannot_be_answered_gets_its_reason():
    problem = {"angles": [0.0], "targets": [0], "p": [1.0], "rate": 1.0, "steps": 2}
    shown = {"title": "t", "still": plt.figure(), "alt": "a", "parameters": []}
    it = planar_explorer("plane", **problem, **shown, views=[view("plane", "plane", "p", radius=4.0, levels=[1])])
    it.request = {"state": it.spec["state"] | {"rate": -1.0}, "number": 1}
    assert it.reply["number"] == 1
    assert it.reply["error"].startswith("rate: found -1.0, allowed: ")


def test_both_minimisers_of_a_frame():
    near = math.acos(0.8)
    problem = {"targets": [0, 1, 1], "p": [0.8, 0.6, 0.6], "rate": 1.0, "steps": 1, "start": [0.0, 0.0]}
    it = planar_frame([0.0, -near, near], **problem, minimisers=True)["optimum"]
    assert (it["forgotten"], it["zero_one"], it["least"]) == ([1], pytest.approx(0.4), pytest.approx(0.3))
    assert it["given_up"] in ([2], [3])
    # the slope of the loss along the axis vanishes: 0.4 (1 + t^4) = 0.48 (1 + t^-5) with t = exp(-v_1 / 5)
    t = math.exp(-it["v"][0] / 5)
    assert 5 * t**9 - t**5 == pytest.approx(6, rel=1e-12) and it["v"][1] == pytest.approx(0, abs=1e-12)
    room = planar_frame([0.0, 2.0, 2.5], **problem, minimisers=True)["optimum"]
    assert (room["v"], room["least"], room["given_up"]) == (None, 0, [])
    assert "optimum" not in planar_frame([0.0, 2.0, 2.5], **problem)


def test_markup_inside_the_data_cannot_end_the_script():
    it = explorer(simulate=lambda d: double(d) | {"regime": "</script><b>"})
    page = it.static_html()
    data = re.search(r'<script type="application/json" id="explorer-doubling-data">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in data
    assert json.loads(data)["spec"]["frames"]["0"]["regime"] == "</script><b>"


def test_the_bundle_serves_live_and_static_readers():
    data, _ = explorer()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "<svg" in data["text/html"].split("<script")[0]  # the picture without script
    assert explorer().static_html() == explorer().static_html()
