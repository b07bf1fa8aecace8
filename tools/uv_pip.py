"""Run ``uv pip`` with the settings of pip.

uv is fast but reads no pip configuration. Where somebody has told pip about an index, a proxy, a
folder of wheels or a certificate, the same is told to uv; what uv has been told itself wins.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

# A name of pip's configuration -> the variable that tells uv the same.
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
# pip separates several values by white space; uv takes these with commas.
COMMAS = {"UV_FIND_LINKS"}
TRUE = {"1", "on", "true", "yes"}


def main() -> None:
    """Replace this process by uv."""
    told = read_pip_settings()
    environment = {**translate(told), **os.environ, "VIRTUAL_ENV": sys.prefix}
    options = ["--no-index"] if told.pop("no-index", "false") in TRUE else []
    uv = str(Path(sys.executable).with_name("uv"))
    os.execve(uv, [uv, "pip", *sys.argv[1:], *options], environment)


def read_pip_settings() -> dict[str, str]:
    """Return what pip was told; variables win over the command's section, that over the global."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    found: dict[tuple[int, str], str] = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section)
        if rank is not None and (name in SETTINGS or name == "no-index"):
            found[rank, name] = str(ast.literal_eval(value))
    return {name: value for (_, name), value in sorted(found.items())}


def translate(settings: dict[str, str]) -> dict[str, str]:
    """Return the variables that tell uv the same."""
    told = {}
    for name, variable in SETTINGS.items():
        value = settings.get(name, "")
        if value:
            told[variable] = (",".join if variable in COMMAS else " ".join)(value.split())
    if "UV_INDEX" in told:
        told["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip, too, takes all indexes as one
    return told


if __name__ == "__main__":
    main()
