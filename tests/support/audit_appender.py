"""A process that appends to an audit log until it is killed: it says what was acknowledged.

Run as ``python audit_appender.py FOLDER SEED``. Each entry is ``{"n": N}``, N running on from what
is in the log. After each append it writes the number of the last entry to stdout.
"""

import os
import random
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.log import LogWriter
from pilotage.kit.crypto import Signer

NAME = "audit.example/killed"
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def main() -> None:
    """Append until killed."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    dice = random.Random(seed)
    with LogWriter(folder, NAME, SIGNER) as log:
        os.write(1, b"open %d\n" % log.size)
        while True:
            count = dice.choice((1, 3, 100, 256, 700))
            first = log.size
            log.append([b'{"n": %d}' % n for n in range(first, first + count)])
            if dice.random() < 0.3:
                log.publish()
            os.write(1, b"%d\n" % (first + count))


if __name__ == "__main__":
    main()
