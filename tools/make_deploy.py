"""Write the files below deploy/ that the code is the source of: for Prometheus and for Grafana.

python tools/make_deploy.py            write them
python tools/make_deploy.py --check    fail if any would change
"""

import json
import sys
from pathlib import Path

import yaml

from pilotage.monitoring.dashboards.service import list_boards, render_board
from pilotage.monitoring.dashboards.watch import (
    write_datasource,
    write_provider,
    write_rules,
    write_scrapes,
)

FOLDER = Path(__file__).parents[1] / "deploy"


def main() -> int:
    """Write or check every file."""
    stale = []
    for name, text in make_files().items():
        path = FOLDER / name
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}; run: make deploy-files")
    return 1 if stale else 0


def make_files() -> dict[str, str]:
    """Return the text of each file by its path below the folder."""
    boards = {
        f"grafana/dashboards/{board.name}.json": json.dumps(render_board(board), indent=2) + "\n"
        for board in list_boards()
    }
    others = {
        "grafana/provisioning/datasources/pilotage.yml": write_datasource(),
        "grafana/provisioning/dashboards/pilotage.yml": write_provider(),
        "prometheus/prometheus.yml": write_scrapes(),
        "prometheus/rules/pilotage-itself.yml": write_rules(),
    }
    return boards | {name: write_yaml(content) for name, content in others.items()}


def write_yaml(content: dict[str, object]) -> str:
    """Return a file of YAML that says where it comes from."""
    text = yaml.safe_dump(content, sort_keys=False, width=98, allow_unicode=True)
    return (
        f"# Written by `make deploy-files`; change tools/make_deploy.py or what it calls.\n{text}"
    )


if __name__ == "__main__":
    sys.exit(main())
