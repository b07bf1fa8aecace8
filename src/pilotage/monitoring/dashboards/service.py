"""The dashboards there are, for whoever writes them to files or hands them out."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pilotage.monitoring.dashboards.alerts import make_alerts
from pilotage.monitoring.dashboards.cost import make_cost, make_spending
from pilotage.monitoring.dashboards.fleet import (
    make_fleet,
    make_latency,
    make_machines,
    make_traffic,
)
from pilotage.monitoring.dashboards.grafana import render
from pilotage.monitoring.dashboards.quality import make_answers, make_quality
from pilotage.monitoring.dashboards.series import ALIAS, PROJECT, WINDOW
from pilotage.monitoring.dashboards.types import Board


def list_boards() -> list[Board]:
    """List every board that is kept in files."""
    return [make_fleet(), make_cost(), make_quality(), make_alerts()]


def make_board_of(aliases: Sequence[str], project: str) -> Board:
    """Describe a board of some aliases of a project; raise ValueError if there are none."""
    if not aliases:
        raise ValueError("a board needs an alias at least")
    names = sorted(set(aliases))
    digest = hashlib.sha256("\n".join([project, *names]).encode()).hexdigest()
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Board(
        name="endpoints",
        uid=f"pilotage-{digest[:16]}",
        title=f"Pilotage / {shown}",
        help=f"Traffic, latency, cost and quality of {shown} in the project {project}.",
        variables=(
            replace(PROJECT, values=(project,)),
            replace(ALIAS, values=tuple(names)),
            WINDOW,
        ),
        rows=(
            make_traffic(),
            make_latency(),
            make_machines(),
            make_spending(),
            make_answers(),
        ),
    )


def render_board(board: Board) -> dict[str, Any]:
    """Return a board as Grafana's JSON model."""
    return render(board)
