"""Somebody alters the log: every alteration is found, with and without the signing key.

Without the key the checkpoint stays as it is. Somebody with the key signs what they made; then a
checkpoint that was kept elsewhere finds everything before it, and nothing can find what is behind.
"""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.log import LogWriter
from pilotage.audit.verification import Flaw, verify_files
from pilotage.kit.crypto import Signer

NAME = "audit.example/altered"
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ENTRIES = 3_000
KEPT = 2_000  # how many entries the checkpoint elsewhere speaks of
KINDS = ("bit", "edit", "delete", "insert", "swap", "repeat", "cut")


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a thousand logs are written and forgotten."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A log, and the checkpoint of its first 2,000 entries."""
    folder = tmp_path_factory.mktemp("original") / "log"
    with LogWriter(folder, NAME, SIGNER) as log:
        entries = make_entries()
        log.append(entries[:KEPT])
        kept = log.publish()
        log.append(entries[KEPT:])
        log.publish()
    return folder, kept


def make_entries() -> list[bytes]:
    return [b'{"seq":%d,"who":"u%d","what":"promote"}' % (n, n % 9) for n in range(ENTRIES)]


def is_found(folder: Path, *outside: str) -> bool:
    try:
        verify_files(folder, NAME, SIGNER.public, outside=outside, processes=1)
    except Flaw:
        return True
    return False


def alter(kind: str, dice: random.Random) -> tuple[list[bytes], int]:
    """Return the entries as somebody would like them, and the first place that differs."""
    entries = make_entries()
    at = dice.randrange(len(entries) - 1)
    if kind == "edit":
        entries[at] = entries[at].replace(b"promote", b"promqte")
    elif kind == "delete":
        del entries[at]
    elif kind == "insert":
        entries.insert(at, b'{"x":1}')
    elif kind == "swap":
        entries[at], entries[at + 1] = entries[at + 1], entries[at]
    elif kind == "repeat":
        entries.insert(at, entries[at])
    else:
        del entries[at:]
    return entries, at


def flip_a_bit(folder: Path, dice: random.Random) -> None:
    files = sorted(path for path in (folder / "tile").rglob("*") if path.is_file())
    path = dice.choice(files)
    data = bytearray(path.read_bytes())
    place = dice.randrange(len(data))
    data[place] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def rewrite(folder: Path, entries: list[bytes]) -> None:
    """Make the log anew of other entries, tiles and all, and sign it."""
    shutil.rmtree(folder)
    with LogWriter(folder, NAME, SIGNER) as log:
        log.append(entries)
        log.publish()


def count_found(original: tuple[Path, str], scratch: Path, rounds: int) -> list[str]:
    """Alter the log again and again; return what was not found and should have been."""
    folder, kept = original
    dice = random.Random(4711)
    missed: list[str] = []
    for number in range(rounds):
        kind = KINDS[number % len(KINDS)]
        altered = scratch / "altered"
        shutil.copytree(folder, altered)
        if kind == "bit":
            flip_a_bit(altered, dice)
            if not is_found(altered):
                missed.append(f"{number}: {kind}")
        else:
            entries, at = alter(kind, dice)
            checkpoint = (altered / "checkpoint").read_bytes()
            rewrite(altered, entries)
            if at < KEPT and not is_found(altered, kept):
                missed.append(f"{number}: {kind} at {at}, with the key")
            (altered / "checkpoint").write_bytes(checkpoint)
            if not is_found(altered):
                missed.append(f"{number}: {kind} at {at}, without the key")
        shutil.rmtree(altered)
    return missed


def test_the_original_is_whole(original: tuple[Path, str]) -> None:
    folder, kept = original

    assert not is_found(folder, kept)


def test_alterations_are_found(original: tuple[Path, str], scratch: Path) -> None:
    assert count_found(original, scratch, rounds=70) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_of_a_thousand_alterations_are_found(
    original: tuple[Path, str], scratch: Path
) -> None:
    assert count_found(original, scratch, rounds=1_000) == []


def test_what_is_behind_the_newest_checkpoint_elsewhere_can_be_rewritten(
    original: tuple[Path, str], tmp_path: Path
) -> None:
    folder, kept = original
    altered = tmp_path / "altered"
    shutil.copytree(folder, altered)
    entries = make_entries()
    entries[KEPT + 500] = b'{"seq":0}'
    rewrite(altered, entries)

    assert not is_found(altered, kept)  # which is why checkpoints are kept elsewhere, and often


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "checkpoint").unlink(),
        lambda folder: (folder / "checkpoint").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "tile" / "1" / "000.p" / "11").unlink(),
        lambda folder: (folder / "tile" / "0" / "003").unlink(),
    ],
)
def test_what_is_missing_is_found(
    original: tuple[Path, str], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder, _ = original
    altered = tmp_path / "altered"
    shutil.copytree(folder, altered)
    damage(altered)

    assert is_found(altered)


def test_many_processes_find_what_one_finds(original: tuple[Path, str], tmp_path: Path) -> None:
    altered = tmp_path / "large"
    with LogWriter(altered, NAME, SIGNER) as log:
        log.append([b'{"n":%d}' % n for n in range(110_000)])
        log.publish()
    whole = verify_files(altered, NAME, SIGNER.public, processes=2)
    path = altered / "tile" / "entries" / "400"
    path.write_bytes(path.read_bytes().replace(b"102400", b"102401"))

    assert whole.size == 110_000
    with pytest.raises(Flaw, match="entries from 102400 to 102655"):
        verify_files(altered, NAME, SIGNER.public, processes=2)
