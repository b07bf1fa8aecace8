"""What the Python API says of a version: defaults, aliases, round trips."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pilotage
from pilotage import DeploymentStage, ModelMetadata, ModelSource
from pilotage.kit.clock import to_datetime

TEXTS = st.text(max_size=10)
NUMBERS = st.dictionaries(TEXTS, st.floats(allow_nan=False, allow_infinity=False), max_size=3)
TIMES = st.none() | st.integers(0, 2**52).map(to_datetime)
METADATA = st.builds(
    ModelMetadata,
    name=TEXTS,
    version=st.sampled_from(["1.0.0", "2.1.0-rc.1", "1.0.0+build"]),
    display_name=TEXTS,
    source=st.sampled_from(ModelSource),
    deployment_stage=st.sampled_from(DeploymentStage),
    base_model=st.none() | TEXTS,
    performance_metrics=NUMBERS,
    cost_metrics=NUMBERS,
    tags=st.lists(TEXTS, max_size=3),
    created_at=TIMES,
    updated_at=TIMES,
    parent_version=st.none() | TEXTS,
    vertex_ai_resource_name=st.none() | TEXTS,
    custom_metadata=st.dictionaries(TEXTS, TEXTS | st.booleans(), max_size=3),
)


def test_only_name_and_version_must_be_given() -> None:
    assert ModelMetadata(name="chat", version="1.0.0").to_dict() == {
        "name": "chat",
        "version": "1.0.0",
        "display_name": "",
        "description": "",
        "source": "manual",
        "artifact_uri": "",
        "serving_container_uri": "",
        "deployment_stage": "development",
        "base_model": None,
        "performance_metrics": {},
        "cost_metrics": {},
        "tags": [],
        "created_at": None,
        "updated_at": None,
        "created_by": "",
        "parent_version": None,
        "vertex_ai_resource_name": None,
        "custom_metadata": {},
    }
    with pytest.raises(TypeError):
        ModelMetadata("chat", "1.0.0")  # type: ignore[call-arg]


def test_versions_are_semantic() -> None:
    with pytest.raises(ValueError, match="not a semantic version: 'v1'"):
        ModelMetadata(name="chat", version="v1")


def test_nothing_is_shared_between_two() -> None:
    first, second = (ModelMetadata(name="chat", version="1.0.0") for _ in range(2))
    first.tags.append("a")
    first.to_dict()["tags"].append("b")

    assert (first.tags, second.tags) == (["a"], [])


@given(METADATA)
def test_metadata_survive_json(metadata: ModelMetadata) -> None:
    assert ModelMetadata.from_dict(json.loads(json.dumps(metadata.to_dict()))) == metadata


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        ModelMetadata.from_dict({"name": "chat", "version": "1.0.0", "colour": "red"})


def test_both_spellings_are_one_source() -> None:
    for alias, name in (
        ("SE_DARWIN", "SE_DARWIN_EVOLUTION"),
        ("MANUAL", "MANUAL_UPLOAD"),
        ("HUGGINGFACE", "PRETRAINED_HF"),
    ):
        assert ModelSource[alias] is ModelSource[name]
    assert {source.name: source.value for source in ModelSource} == {
        "SE_DARWIN_EVOLUTION": "se_darwin",
        "MANUAL_UPLOAD": "manual",
        "PRETRAINED_HF": "huggingface",
        "PRETRAINED_VERTEX": "vertex_model_garden",
        "CUSTOM_TRAINING": "custom",
        "PACKAGE": "package",
    }
    assert [stage.value for stage in DeploymentStage] == [
        "development",
        "staging",
        "production",
        "archived",
    ]


def test_a_resource_name_is_vertex_ais_or_ours() -> None:
    metadata = ModelMetadata(name="chat", version="1.0.0")
    vertex = dataclasses.replace(metadata, vertex_ai_resource_name="projects/1/models/2")

    assert metadata.resource_name == "models/chat@1.0.0"
    assert vertex.resource_name == "projects/1/models/2"


def test_every_public_name_is_there_and_the_package_is_light() -> None:
    for name in pilotage.__all__:
        assert getattr(pilotage, name) is not None
    program = (
        "import sys, pilotage; pilotage.ModelRegistry(project_id='a'); "
        "print(sorted({'pydantic', 'sqlalchemy', 'fastapi', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout == b"[]\n"
