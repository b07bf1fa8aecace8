"""Write the reference pages that the code is the source of: errors, settings, the control API.

python tools/make_reference.py            write them
python tools/make_reference.py --check    fail if any would change
"""

import asyncio
import inspect
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from pilotage.core.condition import parser as condition_parser
from pilotage.core.condition.catalogue import METRICS
from pilotage.core.condition.fields import FIELDS
from pilotage.core.condition.units import SUFFIXES, format_unit
from pilotage.core.condition.writer import write_decimal
from pilotage.core.data_classes import DATA_CLASSES
from pilotage.core.duration import format_duration
from pilotage.core.errors import CATALOGUE
from pilotage.gateway.telemetry.table import TABLE, Metric
from pilotage.identity.matrix import MATRIX, list_roles
from pilotage.identity.types import Role
from pilotage.kit.api import RawRoute, Route
from pilotage.kit.config import list_settings
from pilotage.monitoring.exports.table import CONTROL, Shown

PAGES = Path(__file__).parents[1] / "docs" / "reference"


def main() -> int:
    """Write or check every page."""
    stale = []
    for name, text in make_pages().items():
        path = PAGES / name
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}; run: make docs")
    return 1 if stale else 0


def make_pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    return {
        "errors.md": make_errors(),
        "settings.md": make_settings(),
        "api.md": make_api(),
        "permissions.md": make_permissions(),
        "data-classes.md": make_data_classes(),
        "metrics.md": make_metrics(),
        "conditions.md": make_conditions(),
    }


def make_errors() -> str:
    """Return the page of error codes."""
    lines = [
        "# Errors",
        "",
        "Every refusal has a code. The control API (`/api/v1`) sends it as a problem after",
        "RFC 9457, the gateway (`/v1`) as an OpenAI error object. *Again* says whether the same",
        "request may be repeated.",
        "",
        "| code | status | meaning | again | OpenAI type |",
        "|---|---|---|---|---|",
    ]
    for spec in CATALOGUE.values():
        again = "yes" if spec.is_retryable else "no"
        lines.append(f"| `{spec.code}` | {spec.status} | {spec.title} | {again} | `{spec.type}` |")
    return "\n".join(lines) + "\n"


def make_metrics() -> str:
    """Return the page of the metrics of gateways and of the control plane."""
    lines = [
        "# Metrics",
        "",
        "## Of a gateway",
        "`GET /metrics` of a gateway, in Prometheus' text format. Every series has the label",
        "`slot` beside those named here.",
        "",
        *write_metrics(TABLE),
        "",
        "## Of the control plane",
        "`GET /metrics` of the control plane, for who may read in the whole installation: the",
        "metrics of [conditions](conditions.md) as gauges, and a few about itself. The gauges have",
        "the labels `project`, those named here and, unless they are of now or of a calendar",
        "period, `window`. Where an enabled rule asks for further labels or another window, there",
        "are series with those, too. What nobody measures has no series.",
        "",
        "| gauge | labels | meaning |",
        "|---|---|---|",
    ]
    for gauge in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in sorted(gauge.split_by))
        lines.append(f"| `{gauge.gauge}` | {labels} | {gauge.help} ({gauge.unit_name}). |")
    return "\n".join([*lines, "", *write_metrics(CONTROL)]) + "\n"


def write_metrics(metrics: Iterable[Metric | Shown]) -> list[str]:
    """Return a table of metrics."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return lines


def make_conditions() -> str:
    """Return the page of the condition language: as it was, with its made parts made anew."""
    text = (PAGES / "conditions.md").read_text()
    doc = inspect.getdoc(condition_parser) or ""
    grammar = inspect.cleandoc("\n" + doc.partition("::")[2])
    text = _replace_part(text, "grammar", ["```ebnf", grammar, "```"])
    text = _replace_part(text, "metrics", _list_metrics())
    text = _replace_part(text, "units", _list_units())
    return _replace_part(text, "fields", _list_fields())


def _replace_part(text: str, name: str, lines: list[str]) -> str:
    """Return a page with what stands between two marks replaced."""
    start, end = f"<!-- made: {name} -->\n", "<!-- end -->\n"
    first = text.index(start) + len(start)
    last = text.index(end, first)
    return text[:first] + "\n".join(lines) + "\n" + text[last:]


def _list_metrics() -> list[str]:
    lines = ["| metric | unit | over | by | can be by | is |", "|---|---|---|---|---|---|"]
    for metric in METRICS.values():
        others = ", ".join(label for label in metric.labels if label not in metric.split_by)
        window = format_duration(metric.window_us) if metric.window_us else ""
        lines.append(
            f"| `{metric.name}` | {metric.unit_name} | {window} | {', '.join(metric.split_by)} "
            f"| {others} | {metric.help} |"
        )
    return lines


def _list_units() -> list[str]:
    lines = ["| written | unit | times |", "|---|---|---|"]
    for suffix, (unit, factor) in SUFFIXES.items():
        lines.append(f"| `{suffix}` | {format_unit(unit)} | {write_decimal(factor)} |")
    return lines


def _list_fields() -> list[str]:
    lines = ["| `metric_name` | is | `threshold` in |", "|---|---|---|"]
    for name, field in FIELDS.items():
        unit = field.suffix or METRICS[field.metric].unit_name
        lines.append(f"| `{name}` | `{field.metric}` | {unit} |")
    return lines


def make_settings() -> str:
    """Return the page of process settings."""
    lines = [
        "# Settings",
        "",
        "Process settings come from `pilotage.yaml` in the working folder (or the file that",
        "`PILOTAGE_CONFIG` names) and from variables, which win. Everything else (models, keys,",
        "prices, endpoints) is an object of the control API. `pilotage config check` checks both.",
        "",
        "| setting | variable | type | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for doc in list_settings():
        default = f"`{doc.default}`" if doc.default else ""
        kind = doc.type.replace("|", "or")
        lines.append(
            f"| `{doc.name}` | `{doc.variable}` | {kind} | {default} | {doc.description} |"
        )
    return "\n".join(lines) + "\n"


def make_api() -> str:
    """Return the page of control-plane routes."""
    lines = [
        "# Control API",
        "",
        "Below `/api/v1`; the OpenAPI document is at `/api/v1/openapi.json`. Every request needs",
        "`Authorization: Bearer CREDENTIAL` (the administrator's, from `credentials.toml`).",
        "`?project=NAME` chooses the project. POST takes `Idempotency-Key`; PUT and PATCH need",
        "`If-Match` with the ETag that was read, or `*`. Lists take `limit` and `after`.",
        "`X-Pilotage-Reason` is kept with a change.",
        "",
        "| method | path | permission | what it does |",
        "|---|---|---|---|",
    ]
    routes, raw_routes = open_routes()
    lines += list_rows(routes)
    lines += [
        "",
        "Files, and what gateways apart ask for; these are not in the OpenAPI document:",
        "",
        "| method | path | permission | what it does |",
        "|---|---|---|---|",
        *list_rows(raw_routes),
    ]
    return "\n".join(lines) + "\n"


def list_rows(routes: Iterable[Route | RawRoute]) -> Iterable[str]:
    """Yield a row for each route, by its path."""
    for route in sorted(routes, key=lambda item: (item.path, item.method)):
        text = (inspect.getdoc(route.handler) or "").partition("\n")[0]
        yield f"| {route.method} | `{route.path}` | `{route.permission}` | {text} |"


def make_permissions() -> str:
    """Return the page of the permission matrix: every permission of a route, by role."""
    lines = [
        "# Permissions",
        "",
        "What each role may do at the control API, from `identity/matrix.py`. A role is bound to",
        "one project or to the whole installation; operations on the installation itself need a",
        "role bound to all of it. `admin` does not imply `approver`, and nobody gives a role to",
        "themselves. `predictor` calls models and sees which there are.",
        "",
        "| permission | " + " | ".join(Role) + " |",
        "|---|" + "---|" * len(Role),
    ]
    for permission in sorted({route.permission for routes in open_routes() for route in routes}):
        roles = list_roles(permission)
        cells = ["yes" if role in roles else "" for role in Role]
        lines.append(f"| `{permission}` | " + " | ".join(cells) + " |")
    reasons = [f"- `{rule.permissions}`: {rule.why}." for rule in MATRIX if rule.why]
    return "\n".join([*lines, "", "Why some are as they are:", "", *reasons]) + "\n"


def make_data_classes() -> str:
    """Return the page of what each class of data forbids."""
    lines = [
        "# Data classes",
        "",
        "A tenant says the class of what it sends (`pilotage tenants change NAME --data-class`),",
        "an upstream the closest class that it may see (`--accepts`, else internal). No plan,",
        "fallback or shadow copy of a gateway crosses this table; a call that nothing may answer",
        "is refused with `no_allowed_target`. An upstream that runs in the house (`--location",
        "local`, which no address of a public provider is) may accept restricted data. Replies",
        "kept for an idempotency key stay in the memory of one gateway process, whatever the",
        "class; texts are neither sampled nor cached.",
        "",
        "To make an upstream that may see more than internal data, to raise what one may see, and",
        "to change address, location, proxy or CA file of one that may see more than internal data",
        "takes `endpoints.upstream.trust`: the role `admin`, or `security` beside `ml_ops`.",
        "",
        "| class | means | may go to providers | shadow copies to providers | request log |",
        "|---|---|---|---|---|",
    ]
    for rule in DATA_CLASSES.values():
        out = "those that accept it" if rule.leaves_house else "no"
        copied, logged = (("no", "yes")[flag] for flag in (rule.is_copied_out, rule.is_logged))
        lines.append(f"| `{rule.name}` | {rule.means} | {out} | {copied} | {logged} |")
    return "\n".join(lines) + "\n"


@cache
def open_routes() -> tuple[Sequence[Route], Sequence[RawRoute]]:
    """Return every route, and those between programs, of an installation nobody uses."""
    from pilotage.endpoints.backends.local import AbsentFleet
    from pilotage.kit.clock import SystemClock
    from pilotage.kit.config import Settings
    from pilotage.kit.data_folder import DataFolder
    from pilotage.runtime.installation import open_installation

    async def collect(path: Path) -> tuple[Sequence[Route], Sequence[RawRoute]]:
        folder = DataFolder(path).prepare()
        async with open_installation(
            Settings(data_dir=str(path)), folder, SystemClock(), AbsentFleet()
        ) as opened:
            return opened.routes, opened.raw_routes

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(collect(Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
