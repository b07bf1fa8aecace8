"""Reading a git checkout that is not trusted: what it has committed, and nothing it says to run.

Only commands that read the object store are used, with a time limit, an environment of our own and
no configuration but the checkout's; no hook, filter, monitor, pager or transport can be started.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pilotage.core.errors import PilotageError

TIME_LIMIT_S = 20.0
MOST_BYTES = 64 << 20  # that one command may say
_FILE_MODES = frozenset({b"100644", b"100755"})  # neither links nor submodules
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch what it lacks
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "PATH": "/usr/bin:/bin",
}
_SWITCHES = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "safe.directory=*")


class Blob(NamedTuple):
    """A committed file: its path from the root of the checkout, and the name of its content."""

    path: str
    sha: str


class Checkout:
    """One commit of a checkout; ``repository`` is where it came from, "" if it does not say."""

    def __init__(self, git: str, root: Path, commit: str) -> None:
        self._git = git
        self.root = root
        self.commit = commit
        self.repository = _without_user(self._say("config", "--get", "remote.origin.url"))

    def list_files(self, folder: Path) -> list[Blob]:
        """Return the committed files within a folder (or the one file that it is), by path."""
        inside = folder.resolve().relative_to(self.root).as_posix()
        where = [] if inside == "." else ["--", f":(literal){inside}"]
        listed = self._run("ls-tree", "-r", "-z", "--full-tree", self.commit, *where)
        found = []
        for line in listed.split(b"\0"):
            head, _, path = line.partition(b"\t")
            mode, _, rest = head.partition(b" ")
            if mode in _FILE_MODES:
                found.append(
                    Blob(path.decode("utf-8", "surrogateescape"), rest.split()[1].decode())
                )
        return sorted(found)

    def read(self, blob: Blob) -> bytes:
        """Return the content of a committed file as it was committed."""
        return self._run("cat-file", "blob", blob.sha)

    def _say(self, *words: str) -> str:
        done = _call(self._git, self.root, words)
        return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""

    def _run(self, *words: str) -> bytes:
        done = _call(self._git, self.root, words)
        if done.returncode != 0:
            raise _failed(words[0], done.stderr)
        return done.stdout


def find_checkout(folder: Path, ref: str = "HEAD") -> Checkout | None:
    """Return the checkout that a folder is in, at a commit; None if git knows nothing of it.

    Raises ``invalid_request`` for a ref that it does not have.
    """
    git = shutil.which("git")
    if git is None:
        return None
    top = _call(git, folder, ("rev-parse", "--show-toplevel"))
    if top.returncode != 0:
        return None
    root = Path(top.stdout.decode("utf-8", "surrogateescape").rstrip("\n"))
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    found = _call(git, root, words)
    if found.returncode != 0:
        if ref == "HEAD":
            return None  # nothing is committed yet
        raise PilotageError(
            "invalid_request",
            f"{root} has no commit {ref!r}.",
            hint="Name a branch, a tag or a commit that is in the checkout.",
            param="ref",
        )
    return Checkout(git, root, found.stdout.decode().strip())


def _call(git: str, folder: Path, words: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    switches = [word for switch in _SWITCHES for word in ("-c", switch)]
    try:
        done = subprocess.run(
            [git, "--no-pager", *switches, "-C", str(folder), *words],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise PilotageError(
            "unavailable", f"git {words[0]} took longer than {TIME_LIMIT_S:g} s in {folder}."
        ) from None
    if len(done.stdout) > MOST_BYTES:
        raise _failed(words[0], b"it says too much")
    return done


def _failed(command: str, said: bytes) -> PilotageError:
    reason = said.decode("utf-8", "replace").strip().splitlines()
    return PilotageError(
        "invalid_request", f"git {command} failed: {reason[-1] if reason else 'no reason given'}."
    )


def _without_user(url: str) -> str:
    """Return an address without the name and password that may be in it."""
    parts = urlsplit(url) if "://" in url else None
    if parts is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
