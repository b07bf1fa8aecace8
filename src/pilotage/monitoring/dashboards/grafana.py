"""Dashboards as Grafana's JSON model (schema version 42, that of Grafana 12 and 13).

Format: the npm package ``@grafana/schema``, with which a test checks what is rendered here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pilotage.monitoring.dashboards.types import Board, Kind, Panel, Query, Row, Variable

SCHEMA_VERSION = 42
GRID = 24  # columns
SOURCE = "datasource"
TAG = "pilotage"
_PROMETHEUS = {"type": "prometheus", "uid": f"${{{SOURCE}}}"}
_REFS = "ABCDEFGHIJ"

Json = dict[str, Any]


def render(board: Board) -> Json:
    """Return a dashboard as Grafana imports it; the same board gives the same bytes."""
    return {
        "annotations": {"list": []},
        "description": board.help,
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [_LINK],
        "liveNow": False,
        "panels": list(_place(board.rows)),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": [TAG],
        "templating": {"list": [_SOURCES, *map(_write_variable, board.variables)]},
        "time": {"from": board.since, "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": board.title,
        "uid": board.uid,
        "version": 1,
        "weekStart": "",
    }


def list_queries(board: Board) -> list[str]:
    """Return every PromQL expression of a board."""
    return [query.expr for row in board.rows for panel in row.panels for query in panel.queries]


_LINK: Json = {
    "asDropdown": True,
    "icon": "external link",
    "includeVars": True,
    "keepTime": True,
    "tags": [TAG],
    "targetBlank": False,
    "title": "Pilotage",
    "tooltip": "",
    "type": "dashboards",
    "url": "",
}
_SOURCES: Json = {
    "hide": 0,
    "includeAll": False,
    "label": "Prometheus",
    "multi": False,
    "name": SOURCE,
    "options": [],
    "query": "prometheus",
    "refresh": 1,
    "regex": "",
    "skipUrlSync": False,
    "type": "datasource",
}


def _write_variable(variable: Variable) -> Json:
    common: Json = {
        "hide": 0,
        "includeAll": not variable.is_single,
        "label": variable.label,
        "multi": not variable.is_single,
        "name": variable.name,
        "skipUrlSync": False,
    }
    everything: Json = {"selected": True, "text": ["All"], "value": ["$__all"]}
    if variable.values:
        options = [
            {"selected": variable.is_single and not number, "text": value, "value": value}
            for number, value in enumerate(variable.values)
        ]
        return common | {
            "current": options[0] if variable.is_single else everything,
            "options": options,
            "query": ",".join(variable.values),
            "type": "custom",
        }
    query = f"label_values({variable.source}, {variable.name})"
    return common | {
        "allValue": ".*",
        "current": everything,
        "datasource": _PROMETHEUS,
        "options": [],
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "type": "query",
    }


def _place(rows: Sequence[Row]) -> Iterator[Json]:
    """Put panels side by side, a new line where the next does not fit; a heading on each row."""
    number, top = 1, 0
    for row in rows:
        yield {
            "collapsed": False,
            "gridPos": {"h": 1, "w": GRID, "x": 0, "y": top},
            "id": number,
            "panels": [],
            "title": row.title,
            "type": "row",
        }
        number, top = number + 1, top + 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > GRID:
                left, top, height = 0, top + height, 0
            where = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield _write_panel(panel, number, where)
            number, left, height = number + 1, left + panel.width, max(height, panel.height)
        top += height


def _write_panel(panel: Panel, number: int, where: dict[str, int]) -> Json:
    is_now = panel.kind in (Kind.BARS, Kind.TABLE)
    return {
        "datasource": _PROMETHEUS,
        "description": panel.help,
        "fieldConfig": {"defaults": _write_field(panel), "overrides": []},
        "gridPos": where,
        "id": number,
        "options": _OPTIONS[panel.kind],
        "targets": [
            _write_query(query, ref, is_now=is_now, is_table=panel.kind is Kind.TABLE)
            for query, ref in zip(panel.queries, _REFS, strict=False)
        ],
        "title": panel.title,
        "transformations": _arrange(panel) if panel.kind is Kind.TABLE else [],
        "type": panel.kind.value,
    }


def _write_query(query: Query, ref: str, *, is_now: bool, is_table: bool) -> Json:
    return {
        "datasource": _PROMETHEUS,
        "editorMode": "code",
        "expr": query.expr,
        "format": "table" if is_table else "time_series",
        "instant": is_now,
        "legendFormat": query.legend or "__auto",
        "range": not is_now,
        "refId": ref,
    }


def _write_field(panel: Panel) -> Json:
    field: Json = {
        "color": {"mode": "palette-classic" if panel.kind is Kind.LINES else "thresholds"},
        "custom": _write_custom(panel),
        "mappings": [],
        "noValue": "-",
        "thresholds": {"mode": "absolute", "steps": _write_steps(panel)},
        "unit": panel.unit.value,
    }
    if panel.unit is not panel.unit.YES_OR_NO:
        field["min"] = 0
    if panel.most is not None:
        field["max"] = panel.most
    return field


def _write_steps(panel: Panel) -> list[Json]:
    """Return colours from the lowest value up, the first without a bound."""
    first, last = ("red", "green") if panel.is_low_bad else ("green", "red")
    marks = [(panel.warn, "yellow"), (panel.bad, last)]
    if panel.is_low_bad:
        marks = [(panel.bad, "yellow"), (panel.warn, last)]
    steps: list[Json] = [{"color": first, "value": None}]
    steps += [{"color": color, "value": value} for value, color in marks if value is not None]
    if len(steps) == 1:
        return [{"color": "blue" if panel.kind is Kind.NUMBER else "green", "value": None}]
    return steps


def _write_custom(panel: Panel) -> Json:
    if panel.kind is not Kind.LINES:
        return {}
    has_marks = panel.warn is not None or panel.bad is not None
    return {
        "axisSoftMin": 0,
        "drawStyle": "line",
        "fillOpacity": 30 if panel.is_stacked else 8,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if panel.is_stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if has_marks else "off"},
    }


def _arrange(panel: Panel) -> list[Json]:
    """Return how a table keeps and names its columns; its numbers stand last."""
    columns = dict(panel.columns)
    return [
        {"id": "filterFieldsByName", "options": {"include": {"names": [*columns, "Value"]}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: at for at, name in enumerate([*columns, "Value"])},
                "renameByName": columns,
            },
        },
    ]


_REDUCE: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[Kind, Json] = {
    Kind.LINES: {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    Kind.NUMBER: {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": _REDUCE,
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
    },
    Kind.BARS: {
        "displayMode": "gradient",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "maxVizHeight": 300,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "auto",
        "orientation": "horizontal",
        "reduceOptions": _REDUCE,
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    },
    Kind.TABLE: {"cellHeight": "sm", "frameIndex": 0, "showHeader": True},
}
