"""Prometheus' text format 0.0.4, written and read.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import re
from collections.abc import Iterable, Iterator

from pilotage.monitoring.exports.types import Family, FamilyKind, Pairs, Sample

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HEADING = re.compile(r"# HELP (\S+) (.*)\n# TYPE \S+ (\w+)\n")
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_MEANT = {"n": "\n"}


def render(families: Iterable[Family]) -> bytes:
    """Return a page; families without samples are left out."""
    return "".join(_write(family) for family in families if family.samples).encode()


def parse(page: str) -> Iterator[Family]:
    """Read a page as gateways and :func:`render` write it; raise ValueError for anything else."""
    blocks = page.split("# HELP ")
    if blocks[0].strip():
        raise ValueError("not a page of metrics")
    for block in blocks[1:]:
        heading = _HEADING.match(f"# HELP {block}")
        if heading is None:
            raise ValueError("a metric without a heading")
        name, text, kind = heading.groups()
        lines = f"# HELP {block}"[heading.end() :].rstrip("\n").split("\n")
        yield Family(
            name=name,
            kind=FamilyKind(kind),
            help=text,
            samples=tuple(_read(name, line) for line in lines if line),
        )


def _write(family: Family) -> str:
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {family.name} {text}", f"# TYPE {family.name} {family.kind}"]
    lines += [
        f"{family.name}{sample.suffix}{_write_labels(sample.labels)} {_write_number(sample.value)}"
        for sample in family.samples
    ]
    return "\n".join(lines) + "\n"


def _write_number(value: float) -> str:
    """Return a number so that it is read as the same one."""
    exact = float(value)
    return str(int(exact)) if exact.is_integer() and abs(exact) < 1e15 else repr(exact)


def _write_labels(labels: Pairs) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _read(name: str, line: str) -> Sample:
    found = _LINE.fullmatch(line)
    if found is None or not found[1].startswith(name):
        raise ValueError(f"a line that is no sample of {name}")
    labels = tuple(
        (key, _ESCAPED.sub(lambda mark: _MEANT.get(mark[1], mark[1]), value))
        for key, value in _LABEL.findall(found[2] or "")
    )
    return Sample(labels, float(found[3]), found[1].removeprefix(name))
