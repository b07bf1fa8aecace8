"""No code path changes traffic or a stage without checks and a record: found on the syntax tree.

What writes a table of traffic, or the stage of a version, is found in the stores themselves. Every
public function of a slice that comes to such a write, through whatever it calls of the slice, must
also come to ``GovernanceService.record_change``; and to the door of its slice, where calendar and
approvals are. Calls are followed by their receivers: modules by
their imports, ``self`` by its class, attributes by what ``__init__`` says they are.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

RECORDS = "GovernanceService.record_change"
FACTS = "GovernanceService.add_fact"  # what a rollout does belongs to the record of its start
DOORS = (
    "endpoints.traffic.Traffic.begin",
    "endpoints.traffic.Traffic.check_upstream",
    "endpoints.traffic.Traffic.check_rollout",
    "registry.promotions.Promotions.promote",
)
SLICES = ("endpoints", "registry", "rollouts")
TABLES = frozenset({"ENDPOINT", "DEPLOYMENT", "UPSTREAM"})  # every write of these may move traffic
COLUMNS = frozenset({"stage"})  # and every write of these columns, whatever the table
_READS = frozenset({"find", "list", "count", "search", "has"})
_WRITES = frozenset({"insert", "insert_many", "update", "delete"})

# What writes those tables and moves no traffic, and why.
HARMLESS = {
    "endpoints.service.EndpointService.create_endpoint": "it has no deployment yet",
    "endpoints.service.EndpointService.change_endpoint": "its description, its longest answer",
    "endpoints.scaling.ScalingService.scale": "how many answer, not who",
    "endpoints.scaling.ScalingService.keep_awake": "the same",
    "endpoints.upstreams.UpstreamService.create_upstream": "no deployment names it yet",
    "endpoints.upstreams.UpstreamService.delete_upstream": "refused while deployments name it",
}
# What moves traffic as rollouts say: whoever calls it has the record, and the door was the start's.
OF_ROLLOUTS = frozenset(
    {
        "endpoints.service.EndpointService.shift",
        "endpoints.service.EndpointService.copy_calls",
    }
)


class Function(NamedTuple):
    """A function or method, and what it calls: places in the slices, or names of what is not."""

    place: str
    calls: frozenset[str]
    writes: bool


class _Scope(NamedTuple):
    """How names are understood in a class or module."""

    module: str
    owner: str
    names: Mapping[str, str]  # what imports and definitions call, by the name used here
    attributes: Mapping[str, str]  # the classes of what ``self`` holds


def read_slices(source: Path) -> dict[str, str]:
    """Return the text of every module of the slices, by its dotted name."""
    return {
        ".".join(path.relative_to(source).with_suffix("").parts): path.read_text()
        for name in SLICES
        for path in sorted((source / name).rglob("*.py"))
    }


def find_unrecorded(modules: Mapping[str, str]) -> list[str]:
    """Return the places from where traffic changes without a record, but for the harmless."""
    return sorted(set(list_silent_writers(modules)) - set(HARMLESS) - OF_ROLLOUTS)


def list_silent_writers(modules: Mapping[str, str]) -> list[str]:
    """Return the public places outside stores that come to a write and to no record."""
    functions = [item for name, text in modules.items() for item in _list_functions(name, text)]
    writers = _spread({item.place for item in functions if item.writes}, functions)
    recorders = _spread({RECORDS, FACTS}, functions)
    return [place for place in sorted(writers - recorders) if _is_public(place)]


def list_recorders(modules: Mapping[str, str]) -> list[str]:
    """Return the public places that come to a write and to a record."""
    functions = [item for name, text in modules.items() for item in _list_functions(name, text)]
    writers = _spread({item.place for item in functions if item.writes}, functions)
    return [place for place in sorted(writers & _spread({RECORDS}, functions)) if _is_public(place)]


def find_unchecked(modules: Mapping[str, str]) -> list[str]:
    """Return the places from where traffic changes past every door, but for the harmless."""
    functions = [item for name, text in modules.items() for item in _list_functions(name, text)]
    writers = _spread({item.place for item in functions if item.writes}, functions)
    past = writers - _spread(set(DOORS), functions) - set(HARMLESS) - OF_ROLLOUTS
    return [place for place in sorted(past) if _is_public(place) and not _is_of_rollout(place)]


def _is_of_rollout(place: str) -> bool:
    return place.startswith("rollouts.") and not place.endswith(".start")


def _is_public(place: str) -> bool:
    return "store." not in place and not place.rpartition(".")[2].startswith("_")


def _spread(places: set[str], functions: list[Function]) -> set[str]:
    """Return places, and every one that comes to one of them, through however many calls."""
    found = set(places)
    while True:
        more = {item.place for item in functions if item.calls & found} - found
        if not more:
            return found
        found |= more


def _list_functions(module: str, text: str) -> Iterator[Function]:
    tree = ast.parse(text)
    names = _read_names(module, tree)
    yield from _list_own(tree, _Scope(module, "", names, {}))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            attributes = dict(_read_attributes(node, names))
            yield from _list_own(node, _Scope(module, node.name, names, attributes))


def _list_own(holder: ast.Module | ast.ClassDef, scope: _Scope) -> Iterator[Function]:
    for node in holder.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            place = ".".join(filter(None, (scope.module, scope.owner, node.name)))
            calls = frozenset(filter(None, (_resolve(call, scope) for call in ast.walk(node))))
            writes = _is_writer(scope.module, node) or _passes_column(node, scope)
            yield Function(place, calls, writes)


def _read_names(module: str, tree: ast.Module) -> dict[str, str]:
    names = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pilotage."):
            home = str(node.module).removeprefix("pilotage.")
            for item in node.names:
                names[item.asname or item.name] = f"{home}.{item.name}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = f"{module}.{node.name}"
    return names


def _read_attributes(node: ast.ClassDef, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the classes of what ``__init__`` puts into ``self``: made there, or given in."""
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name != "__init__":
            continue
        arguments = [*method.args.args, *method.args.kwonlyargs]
        given = {item.arg: _find_class(item.annotation, names) for item in arguments}
        for step in ast.walk(method):
            if not isinstance(step, ast.Assign):
                continue
            target, value = step.targets[0], step.value
            if isinstance(target, ast.Attribute):
                made = _find_class(value.func, names) if isinstance(value, ast.Call) else ""
                passed = given.get(value.id, "") if isinstance(value, ast.Name) else ""
                yield target.attr, made or passed


def _find_class(node: ast.AST | None, names: Mapping[str, str]) -> str:
    """Return the class that an annotation or a call names first."""
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Name) and part.id in names:
            return names[part.id]
    return ""


def _resolve(node: ast.AST, scope: _Scope) -> str:
    """Return what a call calls; empty for what is of no interest."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Name):
        return scope.names.get(node.func.id, "")
    if not isinstance(node.func, ast.Attribute):
        return ""
    called, receiver = node.func.attr, node.func.value
    if isinstance(receiver, ast.Name) and receiver.id == "self":
        return f"{scope.module}.{scope.owner}.{called}"
    if isinstance(receiver, ast.Name) and receiver.id in scope.names:
        return f"{scope.names[receiver.id]}.{called}"
    if isinstance(receiver, ast.Attribute):
        owner = scope.attributes.get(receiver.attr, "")
        name = f"{owner}.{called}"
        return next((each for each in (RECORDS, FACTS) if name.endswith(f".{each}")), name)
    return ""


def _is_writer(module: str, function: ast.AST) -> bool:
    """Say whether a function of a store writes one of the tables or columns."""
    if not module.endswith("store"):
        return False
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            names = {arg.id for arg in node.args if isinstance(arg, ast.Name)}
            if node.func.attr in _WRITES and names & TABLES:
                return True
            if node.func.attr == "values" and {word.arg for word in node.keywords} & COLUMNS:
                return True
    return False


def _passes_column(function: ast.AST, scope: _Scope) -> bool:
    """Say whether a function tells a store to write one of the columns: ``stage=...``."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and {word.arg for word in node.keywords} & COLUMNS:
            module, _, called = _resolve(node, scope).rpartition(".")
            if module.endswith("store") and called.partition("_")[0] not in _READS:
                return True
    return False
