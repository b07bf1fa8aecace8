"""Dashboards: what they ask for exists, nothing overlaps, and the files are what the code says."""

import importlib.util
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pilotage.core.condition.catalogue import METRICS
from pilotage.gateway.telemetry.table import TABLE
from pilotage.monitoring.dashboards.grafana import list_queries
from pilotage.monitoring.dashboards.service import list_boards, make_board_of, render_board
from pilotage.monitoring.dashboards.types import Board
from pilotage.monitoring.dashboards.watch import WATCHES
from pilotage.monitoring.exports.table import CONTROL

ROOT = Path(__file__).parents[3]
BOARDS = [*list_boards(), make_board_of(["chat", "summaries"], "default")]
NAME = re.compile(r"\b(?:pilotage|gen_ai|process)_[a-z0-9_]+")
PARTS = re.compile(r"_(bucket|sum|count)$")
by_name = pytest.mark.parametrize("board", BOARDS, ids=[board.name for board in BOARDS])


def list_metrics() -> set[str]:
    gauges = {metric.gauge for metric in METRICS.values()}
    gateways = {metric.name for metric in TABLE}
    return gauges | gateways | {metric.name for metric in CONTROL}


@by_name
def test_every_metric_that_is_asked_for_exists(board: Board) -> None:
    check_names([*list_queries(board), *(one.source for one in board.variables if one.source)])


def test_every_metric_that_is_watched_exists() -> None:
    check_names([watch.expr for watch in WATCHES if not watch.expr.startswith("up{")])


def check_names(asked: Sequence[str]) -> None:
    known = list_metrics()
    for query in asked:
        found = NAME.findall(query)
        assert found, query
        for name in found:
            assert name in known or PARTS.sub("", name) in known, f"{name} in {query}"


@by_name
def test_panels_lie_side_by_side_within_the_grid(board: Board) -> None:
    panels: list[dict[str, Any]] = render_board(board)["panels"]

    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in itertools.combinations((panel["gridPos"] for panel in panels), 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_beside or is_above, (one, other)


@by_name
def test_thresholds_rise_and_every_choice_is_used(board: Board) -> None:
    rendered = render_board(board)

    for panel in rendered["panels"]:
        if panel["type"] == "row":
            continue
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None
        assert steps[1:] == sorted(steps[1:])
    text = " ".join(list_queries(board))
    for variable in board.variables:
        assert f"${variable.name}" in text


def test_a_board_of_endpoints_chooses_among_them_only() -> None:
    rendered = render_board(make_board_of(["b", "a", "a"], "bank"))

    choices = {one["name"]: one for one in rendered["templating"]["list"]}
    assert [option["value"] for option in choices["alias"]["options"]] == ["a", "b"]
    assert choices["project"]["query"] == "bank"
    assert choices["alias"]["current"]["value"] == ["$__all"]
    assert rendered["uid"] != render_board(make_board_of(["a"], "bank"))["uid"]
    assert rendered["uid"] == render_board(make_board_of(["a", "b"], "bank"))["uid"]
    many = make_board_of(list("abcde"), "bank")
    assert many.title == "Pilotage / a, b, c and 2 more"
    with pytest.raises(ValueError, match="an alias at least"):
        make_board_of([], "bank")


def test_the_files_of_the_deployment_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("make_deploy", ROOT / "tools" / "make_deploy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files = module.make_files()

    for name, text in files.items():
        there = (ROOT / "deploy" / name).read_text()
        assert there == text, f"deploy/{name} is stale: run make deploy-files"
    kept = {path.name for path in (ROOT / "deploy" / "grafana" / "dashboards").glob("*")}
    assert kept == {Path(name).name for name in files if name.startswith("grafana/dashboards/")}
    for name in kept:
        json.loads((ROOT / "deploy" / "grafana" / "dashboards" / name).read_text())
