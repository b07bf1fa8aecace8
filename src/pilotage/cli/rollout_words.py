"""Steps and gates of a rollout as words of a command line."""

from collections.abc import Sequence
from typing import Any

from pilotage.cli.session import fail_usage

STEP_FORM = "WEIGHT[,at_least=10m][,at_most=2h][,approval]"
GATE_FORM = "NAME[:margin=20%][,limit=1%][,over=2s][,cap=0.05]"
_STEP_SETTINGS = ("at_least", "at_most")
_GATE_SETTINGS = ("margin", "limit", "over", "cap")
_APPROVAL = "approval"


def read_step(word: str) -> dict[str, Any]:
    """Return a step of the API from words such as ``5%,at_least=10m,approval``."""
    weight, *settings = word.split(",")
    step: dict[str, Any] = {"weight": weight}
    for setting in settings:
        if setting == _APPROVAL:
            step[_APPROVAL] = True
        else:
            step |= _read_setting(setting, word, _STEP_SETTINGS, STEP_FORM)
    return step


def read_gates(words: Sequence[str], left_out: Sequence[str]) -> dict[str, Any] | None:
    """Return gates of the API: those that are set, and null for those that are left out."""
    gates: dict[str, Any] = {}
    for word in words:
        name, _, rest = word.partition(":")
        if name in gates:
            fail_usage(f"The gate {name!r} is there twice.")
        gates[name] = {}
        for setting in filter(None, rest.split(",")):
            gates[name] |= _read_setting(setting, word, _GATE_SETTINGS, GATE_FORM)
    for name in left_out:
        if name in gates:
            fail_usage(f"The gate {name!r} is both set and left out.")
        gates[name] = None
    return gates or None


def _read_setting(setting: str, word: str, known: Sequence[str], form: str) -> dict[str, str]:
    name, is_pair, value = setting.partition("=")
    if not (is_pair and value and name in known):
        fail_usage(f"{setting!r} in {word!r} cannot be read.", f"Write {form}.")
    return {name: value}
