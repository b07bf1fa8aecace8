"""The page that is left of a story: what happened when, how traffic moved, what gates said."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

WIDTH, HEIGHT = 640, 120
LEAST_SHOWN = 0.05


def write_page(story: Any, target: Path) -> Path:  # noqa: ANN401 - the story of demo.py
    """Write the page; return its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    rollouts = [
        {**each, "gates": each["looks"][-1]["gates"], "lines": _draw_evidence(each)}
        for each in story.rollouts
        if each["looks"]
    ]
    page = environment.get_template("story.html.j2").render(
        acts=story.acts,
        checks=story.checks,
        is_good=all(holds for _, holds in story.checks),
        took_s=story.now_s(),
        rollouts=rollouts,
        weights=_draw_steps(story.weights, story.now_s()),
        width=WIDTH,
        height=HEIGHT,
    )
    target.write_text(page, encoding="utf-8")
    return target


def _draw_steps(weights: list[tuple[float, float]], end_s: float) -> str:
    """Return the points of the candidate's share over time, as a line of SVG."""
    points, percent = [_point(0, 0)], 0.0
    for at_s, now in [*weights, (end_s, -1.0)]:
        if now != percent:
            points.append(_point(at_s / end_s, percent / 100))
            percent = percent if now < 0 else now
            points.append(_point(at_s / end_s, percent / 100))
    return " ".join(points)


def _draw_evidence(rollout: dict[str, Any]) -> list[dict[str, str]]:
    """Return a line for each gate that found something: its evidence from look to look.

    Heights are parts of the bound: a line that reaches the top has decided.
    """
    looks = rollout["looks"]
    shown = "worse" if rollout["state"] == "rolled_back" else "fine"
    lines = []
    for name in (gate["gate"] for gate in looks[-1]["gates"]):
        gates = [gate for look in looks for gate in look["gates"] if gate["gate"] == name]
        heights = [min(1.0, max(0.0, gate[shown] / gate[f"{shown}_bound"])) for gate in gates]
        if max(heights) > LEAST_SHOWN:
            points = [_point(n / (len(heights) - 1 or 1), up) for n, up in enumerate(heights)]
            said = "is worse" if shown == "worse" else "is good enough"
            lines.append({"gate": name, "said": said, "points": " ".join(points)})
    return lines


def _point(right: float, up: float) -> str:
    return f"{right * WIDTH:.1f},{(1 - up) * (HEIGHT - 4) + 2:.1f}"
