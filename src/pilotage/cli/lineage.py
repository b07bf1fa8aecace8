"""``pilotage models lineage``: what something came of, and what came of it."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from pilotage.cli.session import Json, Project, run, say, show_json
from pilotage.sdk.control import ControlClient


class Format(StrEnum):
    """How a lineage is drawn."""

    TREE = "tree"
    MERMAID = "mermaid"
    DOT = "dot"


def lineage(
    of: Annotated[str, typer.Argument(metavar="NAME@VERSION|KIND:ID", help="Where to begin.")],
    *,
    form: Annotated[Format, typer.Option("--format", help="How to draw it.")] = Format.TREE,
    steps: Annotated[int, typer.Option(min=1, max=32, help="How far to go.")] = 32,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show what a version came of (data, runs, versions) and what came of it (deployments ...).

    [bold]Examples[/bold]: pilotage models lineage chat@1.0.0
    |    pilotage models lineage chat@1.0.0 --format mermaid
    """

    async def work(control: ControlClient) -> dict[str, Any]:
        return await control.get("/lineage", of=of, steps=steps)

    found = run(work, project)
    if as_json:
        show_json(found)
        return
    draw = {Format.TREE: draw_tree, Format.MERMAID: draw_mermaid, Format.DOT: draw_dot}[form]
    say("\n".join(draw(found)))


def draw_tree(found: dict[str, Any]) -> Iterator[str]:
    """Draw what it came of above, what came of it below; what was drawn already is not repeated."""
    names = _name_nodes(found)
    middle = found["middle"]
    before = [(edge["target"], edge["source"], edge["relation"]) for edge in found["edges"]]
    behind = [(edge["source"], edge["target"], edge["relation"]) for edge in found["edges"]]
    steps = {f"{node['kind']}:{node['id']}": node["steps"] for node in found["nodes"]}
    yield names[middle]
    for title, edges, sign in (("came of", before, -1), ("led to", behind, 1)):
        here = [item for item in edges if _is_on_side(item, steps, sign)]
        branch = list(_draw_branch(middle, here, names, "  ", {middle}))
        yield f"{title}{'' if branch else ': nothing that is known'}"
        yield from branch
    if found["is_cut"]:
        yield "... and more: give --steps, or begin elsewhere"


def draw_mermaid(found: dict[str, Any]) -> Iterator[str]:
    """Draw a flowchart for Mermaid."""
    names = _name_nodes(found)
    numbers = {node: f"n{number}" for number, node in enumerate(names)}
    yield "flowchart LR"
    for node, name in names.items():
        yield f'  {numbers[node]}["{_quote(name, "#quot;")}"]'
    for edge in found["edges"]:
        ends = numbers[edge["source"]], numbers[edge["target"]]
        yield f"  {ends[0]} -- {_quote(edge['relation'], '')} --> {ends[1]}"


def draw_dot(found: dict[str, Any]) -> Iterator[str]:
    """Draw a directed graph for Graphviz."""
    yield "digraph lineage {"
    yield "  rankdir=LR; node [shape=box];"
    for node, name in _name_nodes(found).items():
        yield f'  "{_quote(node)}" [label="{_quote(name)}"];'
    for edge in found["edges"]:
        ends = f'"{_quote(edge["source"])}" -> "{_quote(edge["target"])}"'
        yield f'  {ends} [label="{_quote(edge["relation"])}"];'
    yield "}"


def _draw_branch(
    node: str,
    edges: list[tuple[str, str, str]],
    names: dict[str, str],
    indent: str,
    drawn: set[str],
) -> Iterator[str]:
    for _, other, relation in (edge for edge in edges if edge[0] == node):
        is_repeated = other in drawn
        yield f"{indent}{names[other]} ({relation}){' ...' if is_repeated else ''}"
        if not is_repeated:
            drawn.add(other)
            yield from _draw_branch(other, edges, names, f"{indent}  ", drawn)


def _is_on_side(edge: tuple[str, str, str], steps: dict[str, int], sign: int) -> bool:
    return all(steps[node] * sign >= 0 for node in edge[:2])


def _name_nodes(found: dict[str, Any]) -> dict[str, str]:
    """Return what people call each node: ``version chat@1.0.0``, ``tuning run run-7``."""
    return {
        f"{node['kind']}:{node['id']}": (
            f"{node['kind'].replace('_', ' ')} {node['ref'] or node['id']}"
        )
        for node in found["nodes"]
    }


def _quote(text: str, mark: str = '\\"') -> str:
    return text.replace("\n", " ").replace('"', mark)
