"""Taking somebody's access away by command: what they leave behind is told."""

from pathlib import Path

import pytest

from command_line import CommandLine

pytestmark = pytest.mark.slow  # every command opens an installation


def test_the_keys_that_somebody_made_are_named_when_they_leave(tmp_path: Path) -> None:
    admin = CommandLine(tmp_path)
    admin.ok("principals", "create", "sue")
    admin.ok("roles", "grant", "sue", "security")
    secret = admin.json("credentials", "create", "sue")["secret"]
    sue = CommandLine(tmp_path, PILOTAGE_CONTROL_CREDENTIAL="env:CREDENTIAL", CREDENTIAL=secret)
    key = sue.json("keys", "create", "--name", "mine")["id"]

    left = admin.ok("access", "revoke", "sue", "--reason", "has left")
    review = admin.ok("access", "review", "--markdown").out

    assert left.out == "sue may do nothing any more.\n"
    assert f"pilotage keys revoke {key}" in left.err
    (line,) = [line for line in review.splitlines() if key in line]
    assert line.endswith(" by sue")
    assert "**look: made by disabled**" in review
