"""What a newcomer does: ``make up``, the printed curl line, Ctrl-C. Prints seconds as JSON.

    python tests/support/newcomer.py CLONE DATA_FOLDER

Uses the standard library only, so that it runs with any Python, as any user, in any namespace.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 600


def main() -> int:
    """Do it; 0 if the model answered and everything stopped."""
    clone, data = sys.argv[1:3]
    log = Path(data).parent / "make-up.log"
    environment = os.environ | {"PILOTAGE_DATA_DIR": data}
    began = time.monotonic()
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "up"], cwd=clone, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    while "Ctrl-C stops." not in log.read_text():
        if make.poll() is not None or time.monotonic() - began > PATIENCE_S:
            print(log.read_text(), file=sys.stderr)
            return 1
        time.sleep(0.05)
    printed = re.search(r"^  (curl .*?\}')$", log.read_text(), re.MULTILINE | re.DOTALL)
    if printed is None:
        print(log.read_text(), file=sys.stderr)
        return 1
    reply = subprocess.run(["sh", "-c", printed[1]], capture_output=True, check=True).stdout
    answered_s = time.monotonic() - began
    os.killpg(make.pid, signal.SIGINT)
    code = make.wait(60)
    answer = json.loads(reply)["choices"][0]["message"]["content"]
    print(json.dumps({"seconds": round(answered_s, 1), "answer": answer, "code": code}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
