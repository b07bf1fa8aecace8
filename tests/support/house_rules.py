"""Rules of the code base that no ready-made linter knows, checked on the syntax tree.

``check_source`` and ``check_test`` take the path of a file (relative to its root) and its text and
return what is wrong with it; tests/architecture runs them over the tree and proves each rule with
a planted violation.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import NamedTuple

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80
MIGRATIONS = "migrations/versions/"

# Where an exception of any kind ends: each edge counts, logs or renders it, and goes on.
BROAD_EXCEPT_EDGES = {
    "step runner": "pilotage/gateway/call.py",
    "gateway door": "pilotage/gateway/http.py",
    "one call's texts beside others": "pilotage/gateway/measures/tap.py",
    "worker loop": "pilotage/kit/worker.py",
    "notice sender": "pilotage/monitoring/notify/sender.py",
    "release maker": "pilotage/governance/worker.py",
    "one rollout beside others": "pilotage/rollouts/worker.py",
    "one spool beside others": "pilotage/kit/spool_consumer.py",
    "operation runner": "pilotage/kit/operations.py",
    "ASGI error door": "pilotage/server/app.py",
    "CLI main": "pilotage/cli/main.py",
    "child reaper": "pilotage/runtime/supervisor.py",
}
ENVIRONMENT_HOME = "pilotage/kit/config.py"
CLOCK_HOME = "pilotage/kit/clock.py"
TASK_HOME = "pilotage/kit/resources.py"
SQL_HOME = "pilotage/kit/*"

_ENVIRONMENT = frozenset(
    {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}
)
_CLOCK = frozenset(
    {
        "time.time",
        "time.time_ns",
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
    }
)
_BARE_TASKS = frozenset(
    {"asyncio.create_task", "asyncio.ensure_future", "asyncio.tasks.create_task"}
)
_SLEEPS = frozenset({"time.sleep", "asyncio.sleep", "anyio.sleep"})
_SQL_VERBS = frozenset({"select", "insert", "update", "delete"})
_BROAD = frozenset({"Exception", "BaseException"})


class Finding(NamedTuple):
    """One violation: where it is and which rule it breaks."""

    path: str
    line: int
    rule: str

    def __str__(self) -> str:
        """Write it the way a compiler would."""
        return f"{self.path}:{self.line}: {self.rule}"


def check_source(path: str, text: str) -> list[Finding]:
    """Check a file of the product; ``path`` is relative to ``src``."""
    module = _read(path, text)
    return _run(module, (*_EVERYWHERE, *_IN_SOURCE))


def check_test(path: str, text: str) -> list[Finding]:
    """Check a file of the test suite; ``path`` is relative to ``tests``."""
    module = _read(path, text)
    return _run(module, (*_EVERYWHERE, *_IN_TESTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    path: str
    tree: ast.Module
    line_count: int
    names: dict[str, str]

    def resolve(self, node: ast.expr) -> str:
        """Return the dotted name of an expression as its imports spell it, or ''."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""

    def is_at(self, pattern: str) -> bool:
        return fnmatch(self.path, pattern)


_Found = Iterator[tuple[int, str]]
_Rule = Callable[[_Module], _Found]


def _read(path: str, text: str) -> _Module:
    tree = ast.parse(text, path)
    return _Module(
        path=path, tree=tree, line_count=len(text.splitlines()), names=dict(_imported(tree))
    )


def _run(module: _Module, rules: tuple[_Rule, ...]) -> list[Finding]:
    found = [Finding(module.path, line, text) for rule in rules for line, text in rule(module)]
    return sorted(set(found))


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (root, root)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _mentions(module: _Module) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Yield every dotted name that the file imports or uses, with its place."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.Name | ast.Attribute):
            yield node, module.resolve(node)


def _file_length(module: _Module) -> _Found:
    if module.line_count > MAX_FILE_LINES:
        yield MAX_FILE_LINES, f"file of {module.line_count} lines, the limit is {MAX_FILE_LINES}"


def _function_length(module: _Module) -> _Found:
    if MIGRATIONS in module.path:
        return  # one step from schema to schema, made by alembic and read once
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield (
                    node.lineno,
                    f"function {node.name} of {lines} lines, the limit is {MAX_FUNCTION_LINES}",
                )


def _global_statement(module: _Module) -> _Found:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"global {', '.join(node.names)}"


def _environment(module: _Module) -> _Found:
    if not module.is_at(ENVIRONMENT_HOME):
        for node, name in _mentions(module):
            if name in _ENVIRONMENT:
                yield node.lineno, f"{name} outside {ENVIRONMENT_HOME}"


def _clock(module: _Module) -> _Found:
    if not module.is_at(CLOCK_HOME):
        for node, name in _mentions(module):
            if name in _CLOCK:
                yield node.lineno, f"{name} outside {CLOCK_HOME}: take a Clock"


def _tasks(module: _Module) -> _Found:
    if module.is_at(TASK_HOME):
        return
    groups = frozenset(_task_groups(module))
    for node, name in _mentions(module):
        if name in _BARE_TASKS:
            yield node.lineno, f"bare {name}: start it in a TaskGroup or kit.resources.Background"
        elif (
            isinstance(node, ast.Attribute)
            and node.attr == "create_task"
            and ast.unparse(node.value) not in groups
        ):
            owner = ast.unparse(node.value)
            yield node.lineno, f"{owner}.create_task: {owner} is not known to be a TaskGroup"


def _task_groups(module: _Module) -> Iterator[str]:
    """Yield the spelling of what is bound to, or annotated as, an asyncio.TaskGroup."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            bound: list[ast.expr] = [node.optional_vars]
            origin: ast.expr | None = node.context_expr
        elif isinstance(node, ast.Assign):
            bound, origin = node.targets, node.value
        elif isinstance(node, ast.AnnAssign):
            bound, origin = [node.target], node.annotation
        elif isinstance(node, ast.arg):
            bound, origin = [ast.Name(node.arg)], node.annotation
        else:
            continue
        if origin is not None and _is_task_group(module, origin):
            yield from (ast.unparse(target) for target in bound)


def _is_task_group(module: _Module, origin: ast.expr) -> bool:
    return any(
        isinstance(part, ast.Name | ast.Attribute) and module.resolve(part) == "asyncio.TaskGroup"
        for part in ast.walk(origin)
    )


def _base_http_middleware(module: _Module) -> _Found:
    for node, name in _mentions(module):
        if name.rpartition(".")[2] == "BaseHTTPMiddleware":
            yield node.lineno, "BaseHTTPMiddleware: write a plain ASGI class"
    for call in ast.walk(module.tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            kinds = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
            if call.func.attr == "middleware" and kinds == ["http"]:
                yield call.lineno, "middleware('http') is a BaseHTTPMiddleware: write an ASGI class"


def _broad_except(module: _Module) -> _Found:
    if any(module.is_at(edge) for edge in BROAD_EXCEPT_EDGES.values()):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(module, node.type):
            if not isinstance(node.body[-1], ast.Raise):
                caught = f" {ast.unparse(node.type)}" if node.type else ""
                yield node.lineno, f"broad except{caught} swallows what it catches"
        elif (
            isinstance(node, ast.Call)
            and module.resolve(node.func) == "contextlib.suppress"
            and any(_is_broad(module, arg) for arg in node.args)
        ):
            yield node.lineno, "broad contextlib.suppress swallows what it catches"


def _is_broad(module: _Module, caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(module, part) for part in caught.elts)
    return module.resolve(caught).removeprefix("builtins.") in _BROAD


def _sql_verbs(module: _Module) -> _Found:
    if not module.is_at(SQL_HOME):
        for node, name in _mentions(module):
            if name.partition(".")[0] == "sqlalchemy" and name.rpartition(".")[2] in _SQL_VERBS:
                yield (
                    node.lineno,
                    f"{name} outside kit: statements begin at a Tx, which scopes them",
                )


def _sql_around_the_scope(module: _Module) -> _Found:
    """Find what reaches a table without a Tx's builders: its connection, or a table's own verbs."""
    if module.is_at(SQL_HOME) or module.path.startswith("pilotage/migrations/"):
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute):
            continue
        if node.attr == "conn":
            yield node.lineno, "a Tx's connection outside kit: its builders scope statements"
        owner = node.value
        is_table = isinstance(owner, ast.Name) and owner.id.isupper()
        if is_table and node.attr in _SQL_VERBS:
            yield node.lineno, f"a table's own {node.attr} outside kit: a Tx's is scoped"


def _real_sleep(module: _Module) -> _Found:
    if module.is_at("support/*") or module.is_at("bench/*"):
        return  # what polls has to live somewhere, and a load generator keeps its rate
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and module.resolve(node.func) in _SLEEPS:
            first = node.args[0] if node.args else None
            if not (isinstance(first, ast.Constant) and first.value == 0):
                yield node.lineno, f"{module.resolve(node.func)}: poll a condition with a deadline"


def _mocks(module: _Module) -> _Found:
    for node, name in _mentions(module):
        if isinstance(node, ast.Import | ast.ImportFrom) and (
            name == "mock" or name.startswith(("unittest.mock", "mock.", "pytest_mock"))
        ):
            yield node.lineno, f"{name}: drive the real thing"


def _test_package(module: _Module) -> _Found:
    if module.path.rpartition("/")[2] == "__init__.py":
        yield 1, "tests are not a package: remove __init__.py"


_EVERYWHERE: tuple[_Rule, ...] = (_file_length, _function_length, _global_statement)
_IN_SOURCE: tuple[_Rule, ...] = (
    _environment,
    _clock,
    _tasks,
    _base_http_middleware,
    _broad_except,
    _sql_verbs,
    _sql_around_the_scope,
)
_IN_TESTS: tuple[_Rule, ...] = (_real_sleep, _mocks, _test_package)
