"""The reference of objects in files, against what files may hold."""

import re
from pathlib import Path

import msgspec

from pilotage.cli.objects.kinds import (
    KINDS,
    CheckPart,
    GatePart,
    GroupRolePart,
    RoutingPart,
    Rule,
    ScalingPart,
    ShadowPart,
    Share,
    StepPart,
)

ROOT = Path(__file__).parents[3]


def test_the_reference_names_every_kind_and_field() -> None:
    page = (ROOT / "docs" / "reference" / "objects.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))

    assert list(sections) == list(KINDS)
    for kind, shape in KINDS.items():
        documented = re.findall(r"^\| `(\w+)` \|", sections[kind], re.MULTILINE)
        fields = {field.encode_name for field in msgspec.structs.fields(shape)}
        if kind in {"Project", "Principal", "Issuer"}:
            fields -= {"project"}
        if kind == "Issuer":
            fields |= {field.encode_name for field in msgspec.structs.fields(GroupRolePart)}
        if kind == "GatePolicy":
            fields |= {field.encode_name for field in msgspec.structs.fields(CheckPart)}
        if kind == "Endpoint":
            for part in (Share, RoutingPart, Rule, ShadowPart, ScalingPart):
                fields |= {field.encode_name for field in msgspec.structs.fields(part)}
        if kind == "Rollout":
            for step in (StepPart, GatePart):
                fields |= {field.encode_name for field in msgspec.structs.fields(step)}
        assert set(documented) == fields, kind
