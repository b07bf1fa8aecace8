"""Following the operations of a pickle, on a stack of their own: nothing is loaded or called.

What is read here must be all that any loader reads, that of C and that of Python: where one of
them goes on, so does this. Texts begin like pickles now and then; none of them keeps the stack that
a call needs.
"""

import pickletools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, NamedTuple, Protocol, cast

MOST_STEPS = 1_000_000
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
_NAMES = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
_MODULE = re.compile(r"[\w-]+(?:\.[\w-]+)*")


class UnreadableError(Exception):
    """There is more of it than is looked at."""


class Source(Protocol):
    """What operations are read from; raises :class:`UnreadableError` where it is left out."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, fewer at the end."""
        ...

    def readline(self) -> bytes:
        """Return the next line."""
        ...


def calls_something(source: Source) -> bool:
    """Say whether pickles, one behind the other, name a function and call it.

    What is longer than can be followed counts as one that does.
    """
    height, names, before = 0, False, ""
    marks: list[int] = []
    try:
        for count, step in enumerate(_read_steps(source)):
            if count == MOST_STEPS or (before == "STOP" and step.name == "PROTO"):
                return True
            before = step.name
            if step.name == "POP" and marks[-1:] == [height]:
                marks.pop()  # a mark on top is what is taken away
                continue
            if step.to_mark and not marks:
                return False
            height = (marks.pop() if step.to_mark else height) - step.takes
            if height < (marks[-1] if marks else 0):
                return False
            names |= step.name in _NAMES
            if names and step.name in _CALLS:
                return True
            height += step.gives
            if step.name == "MARK":
                marks.append(height)
            elif step.name == "STOP":  # another may follow, and what has a name may be kept
                height, marks = 0, []
    except UnreadableError:
        return True  # all that was read could be a pickle
    return False


class _Step(NamedTuple):
    """What an operation does to the stack; ``to_mark``: it takes all to the mark, and the mark."""

    name: str
    takes: int
    to_mark: bool
    gives: int


def _read_steps(source: Source) -> Iterator[_Step]:
    try:
        while code := source.read(1):
            step, read = _STEPS[code]
            read(source)
            yield step
    except (KeyError, ValueError, IndexError, OverflowError):
        return  # here a loader would stop too


def _check_number(line: bytes) -> None:
    """Raise ValueError for what is no integer: of any base, to the first NUL, or nothing."""
    text = line.partition(b"\x00")[0].strip().removesuffix(b"L")
    if text and not text.lstrip(b"+-").isdigit():
        int(text, 0)


def _check_float(line: bytes) -> None:
    float(line.partition(b"\x00")[0])


def _check_string(line: bytes) -> None:
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in {b"'", b'"'}:
        raise ValueError("it is not in quotes")


def _check_module(line: bytes) -> None:
    if not _MODULE.fullmatch(line.decode()):
        raise ValueError("it is no name of a module")


def _check_class(line: bytes) -> None:
    if not all(part.isidentifier() for part in line.decode().split(".")):
        raise ValueError("it is no name of a class")


def _check_text(line: bytes) -> None:
    line.decode()


_LINES: Mapping[
    str, tuple[Callable[[bytes], None], ...]
] = {  # what pickletools reads more strictly
    "INT": (_check_number,),
    "LONG": (_check_number,),
    "GET": (_check_number,),
    "PUT": (_check_number,),
    "FLOAT": (_check_float,),
    "STRING": (_check_string,),
    "PERSID": (_check_text,),
    "GLOBAL": (_check_module, _check_text),  # a module may have whatever it is asked for
    "INST": (_check_module, _check_class),
}


def _make_reader(operation: pickletools.OpcodeInfo) -> Callable[[Source], None]:
    lines, argument = _LINES.get(operation.name, ()), operation.arg

    def read(source: Source) -> None:
        for check in lines:
            line = source.readline()
            if not line.endswith(b"\n"):
                raise ValueError("it ends here")
            check(line[:-1])
        if not lines and argument is not None:
            argument.reader(cast("IO[bytes]", source))

    return read


def _make_step(operation: pickletools.OpcodeInfo) -> _Step:
    before, after = operation.stack_before, operation.stack_after
    to_mark = pickletools.markobject in before
    takes = before.index(pickletools.markobject) if to_mark else len(before)
    gives = 0 if operation.name == "MARK" else len(after)
    return _Step(operation.name, takes, to_mark, gives)


_STEPS = {
    operation.code.encode("latin-1"): (_make_step(operation), _make_reader(operation))
    for operation in pickletools.opcodes
}
