"""Root keys in a file of their owner's alone: the newest wraps, all unwrap."""

from pathlib import Path

import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.root_keys import open_root_keys


def test_the_first_key_is_made_private_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "root.key"
    made = open_root_keys(path)

    wrapped = made.wrap("ten_1", "data_key/1", b"k" * 32)

    assert path.stat().st_mode & 0o777 == 0o600
    assert open_root_keys(path).unwrap(1, "ten_1", "data_key/1", wrapped) == b"k" * 32


def test_a_new_key_wraps_and_the_old_one_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    keys = open_root_keys(path)
    old = keys.wrap("ten_1", "p", b"k")

    assert keys.add() == 2

    again = open_root_keys(path)
    assert (again.newest, again.numbers) == (2, [1, 2])
    assert again.unwrap(1, "ten_1", "p", old) == b"k"
    assert again.unwrap(2, "ten_1", "p", keys.wrap("ten_1", "p", b"k")) == b"k"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_keys_of_another_installation_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    wrapped = open_root_keys(tmp_path / "a").wrap("ten_1", "p", b"k")
    other = open_root_keys(tmp_path / "b")
    for number in (1, 2):
        with pytest.raises(PilotageError, match=r"/b does not open a data key of ten_1") as refused:
            other.unwrap(number, "ten_1", "p", wrapped)
        assert refused.value.code == "invalid_config"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_file_that_others_may_touch_is_refused_naming_chmod(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "root.key"
    open_root_keys(path)
    path.chmod(mode)

    with pytest.raises(PilotageError) as refused:
        open_root_keys(path)

    assert refused.value.hint == f"Run: chmod 600 {path}"


@pytest.mark.parametrize(
    "content", ["", "1\n", "x AAAA\n", "1 AAAA\n", "1 ?\n", "0 " + "A" * 43 + "=\n", "\xff"]
)
def test_a_file_that_is_none_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "root.key"
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)

    with pytest.raises(PilotageError, match="cannot be read"):
        open_root_keys(path)

    assert path.read_bytes() == content.encode("latin-1")
