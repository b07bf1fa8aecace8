"""Write the files below deploy/ that the code is the source of: Grafana's dashboards.

python tools/make_deploy.py            write them
python tools/make_deploy.py --check    fail if any would change
"""

import json
import sys
from pathlib import Path

from pilotage.monitoring.dashboards.service import list_boards, render_board

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
    return {
        f"grafana/dashboards/{board.name}.json": json.dumps(render_board(board), indent=2) + "\n"
        for board in list_boards()
    }


if __name__ == "__main__":
    sys.exit(main())
