"""What slots say of their calls, and what is read of it."""

import stat
from pathlib import Path

import pytest

from pilotage.gateway.demand import STALE_US, Demand, DemandFile, DemandFolder, DeploymentDemand

NOW_US = 1_700_000_000_000_000


def say(at_us: int = NOW_US, waiting: int = 1) -> Demand:
    return Demand(
        at_us=at_us,
        targets_n=7,
        deployments={"dep_a": DeploymentDemand(waiting=waiting, oldest_wait_ms=12, calls=3)},
        replicas={"dep_a.0": 2},
    )


def test_what_slots_say_is_read_as_it_was_said_and_private(tmp_path: Path) -> None:
    DemandFile(tmp_path, "gateway-0").write(say())
    DemandFile(tmp_path, "python-0").write(say(waiting=4))
    (tmp_path / "gateway-0.json").write_text('{"pid":1,"n":1}')  # another file of the slot
    folder = DemandFolder(tmp_path)
    assert folder.read(NOW_US) == {"gateway-0": say(), "python-0": say(waiting=4)}
    assert stat.S_IMODE((tmp_path / "demand-gateway-0.json").stat().st_mode) == 0o600


def test_a_file_that_was_replaced_is_read_again_and_one_that_is_gone_counts_no_more(
    tmp_path: Path,
) -> None:
    folder, file = DemandFolder(tmp_path), DemandFile(tmp_path, "gateway-0")
    file.write(say())
    assert folder.read(NOW_US) == {"gateway-0": say()}
    file.write(say(waiting=9))
    assert folder.read(NOW_US) == {"gateway-0": say(waiting=9)}
    file.remove()
    assert folder.read(NOW_US) == {}
    file.remove()  # nothing is there any more


@pytest.mark.parametrize("content", [b"", b"{", b'{"at_us":"x"}', b'{"at_us":1}'])
def test_a_slot_that_is_broken_or_long_silent_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "demand-gateway-0.json").write_bytes(content)
    DemandFile(tmp_path, "gateway-1").write(say(at_us=NOW_US - STALE_US))
    DemandFile(tmp_path, "gateway-2").write(say())
    assert DemandFolder(tmp_path).read(NOW_US) == {"gateway-2": say()}
