"""Dashboards have the types of Grafana's own schema, the npm package ``@grafana/schema``.

Whatever a dashboard says is checked as a literal, so that a property nobody knows is an error, too.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pilotage.monitoring.dashboards.service import list_boards, make_board_of, render_board

ROOT = Path(__file__).parents[2]
PACKAGES = ("@grafana/schema@13.2.3", "typescript@5.9.3")
FOLDER = ROOT / ".cache" / "grafana-schema-13.2.3"
PANELS = "@grafana/schema/dist/esm/raw/composable"
# Enums of the schema are words and numbers in JSON: each stands for its values.
HEAD = f"""\
import type {{ Dashboard, GraphFieldConfig }} from '@grafana/schema';
import type {{ Options as timeseries }} from '{PANELS}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type {{ Options as stat }} from '{PANELS}/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {{ Options as bargauge }} from '{PANELS}/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type {{ Options as table }} from '{PANELS}/table/panelcfg/x/TablePanelCfg_types.gen';
type Plain<T> = T extends string ? `${{T}}`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer U> ? Array<Plain<U>>
  : T extends object ? {{ [K in keyof T]: Plain<T[K]> }}
  : T;
"""  # noqa: E501 - paths of modules
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def compiler() -> Path:
    """Return the folder of the type checker and the schema, installed at the first use."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    checker = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
    if not checker.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", *PACKAGES]
        done = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, timeout=200, check=False
        )
        if done.returncode:
            pytest.skip(f"npm cannot install {', '.join(PACKAGES)}: {done.stderr[-300:]}")
    return FOLDER


def check(compiler: Path, folder: Path, text: str) -> tuple[int, str]:
    """Check a program, strictly; return the status and what the checker said."""
    (folder / "board.ts").write_text(text)
    options = {
        "strict": True, "noEmit": True, "skipLibCheck": True, "module": "esnext",
        "target": "es2022", "moduleResolution": "bundler", "types": [],
    }  # fmt: skip
    made = {"compilerOptions": options, "files": ["board.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(made))
    (folder / "node_modules").symlink_to(compiler / "node_modules")
    program = compiler / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        ["node", str(program), "--project", str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def write_program(boards: list[dict[str, Any]]) -> str:
    """Return a program in which every board, and every panel's own options, has its type."""
    lines = [HEAD]
    for number, board in enumerate(boards):
        lines.append(f"export const board{number}: Plain<Dashboard> = {json.dumps(board)};")
        for panel in board["panels"]:
            if panel["type"] == "row":
                continue
            name = f"{number}_{panel['id']}"
            options = json.dumps(panel["options"])
            lines.append(f"export const options{name}: Plain<{panel['type']}> = {options};")
            if custom := panel["fieldConfig"]["defaults"]["custom"]:
                lines.append(
                    f"export const field{name}: Plain<GraphFieldConfig> = {json.dumps(custom)};"
                )
    return "\n".join(lines)


def render_all() -> list[dict[str, Any]]:
    return [render_board(board) for board in (*list_boards(), make_board_of(["a"], "default"))]


def test_every_board_has_the_types_of_the_schema(compiler: Path, tmp_path: Path) -> None:
    status, said = check(compiler, tmp_path, write_program(render_all()))

    assert status == 0, said[:4000]
    panels = sum(len(board["panels"]) for board in render_all())
    print(f"\n{len(render_all())} dashboards with {panels} panels and rows have the types")


def spoil_kind(board: dict[str, Any]) -> None:
    board["graphTooltip"] = 7


def spoil_name(board: dict[str, Any]) -> None:
    board["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"


def spoil_options(board: dict[str, Any]) -> None:
    board["panels"][1]["options"]["graphMode"] = "areas"


def spoil_field(board: dict[str, Any]) -> None:
    panel = next(one for one in board["panels"] if one["type"] == "timeseries")
    panel["fieldConfig"]["defaults"]["custom"]["lineWidth"] = "1"


def spoil_place(board: dict[str, Any]) -> None:
    del board["panels"][1]["gridPos"]["w"]


def test_a_board_that_is_wrong_is_found(compiler: Path, tmp_path: Path) -> None:
    spoilt = []
    for spoil in (spoil_kind, spoil_name, spoil_options, spoil_field, spoil_place):
        board = json.loads(json.dumps(render_all()[0]))
        spoil(board)
        spoilt.append(board)

    status, said = check(compiler, tmp_path, write_program(spoilt))

    assert status != 0
    places = set(re.findall(r"board\.ts\((\d+),", said))
    lines = write_program(spoilt).split("\n")
    found = {re.findall(r"const [a-z]+(\d)", lines[int(place) - 1])[0] for place in places}
    assert found == {str(number) for number in range(len(spoilt))}, said[:4000]
