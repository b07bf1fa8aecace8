"""What import-linter cannot say of the import graph: privacy between slices, and knots."""

from graphlib import CycleError, TopologicalSorter

import grimp

SLICES = frozenset(
    {
        "assurance",
        "audit",
        "endpoints",
        "evaluation",
        "finops",
        "gateway",
        "governance",
        "identity",
        "incidents",
        "monitoring",
        "publisher",
        "registry",
        "rollouts",
        "tuning",
    }
)
PUBLIC = frozenset({"types", "service"})  # of a slice, and of a part of it
# They open, assemble and migrate everything, so they see everything.
OPENERS = frozenset({"runtime", "server", "migrations"})


def read_graph() -> grimp.ImportGraph:
    """Return the imports that really run: without those under ``if TYPE_CHECKING``."""
    return grimp.build_graph("pilotage", exclude_type_checking_imports=True, cache_dir=None)


def find_intrusions(graph: grimp.ImportGraph) -> list[str]:
    """List the imports that reach into the private modules of another slice."""
    return sorted(
        f"{importer} -> {module}"
        for module in graph.modules
        if _is_private(module)
        for importer in graph.find_modules_that_directly_import(module)
        if _room(importer) not in (_room(module), *OPENERS)
    )


def find_knot(graph: grimp.ImportGraph) -> list[str]:
    """Return the modules of one circle of imports, or nothing if there is none."""
    sorter = TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    try:
        sorter.prepare()
    except CycleError as knot:
        return list(knot.args[1])
    return []


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _is_private(module: str) -> bool:
    parts = module.split(".")
    return len(parts) > 1 and parts[1] in SLICES and (len(parts) == 2 or parts[-1] not in PUBLIC)
