"""The way through the stages: a walk never skips one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.registry.stages import Move, decide_move, read_stage
from pilotage.registry.types import Stage

WAY = [Stage.DEVELOPMENT, Stage.STAGING, Stage.PRODUCTION]


@given(st.lists(st.sampled_from(list(Stage))), st.text(max_size=3))
def test_a_walk_reaches_production_only_through_staging(wanted: list[Stage], reason: str) -> None:
    now, been = Stage.DEVELOPMENT, [Stage.DEVELOPMENT]
    for stage in wanted:
        try:
            move = decide_move("tiny@1.0.0", now, stage, reason)
        except PilotageError:
            continue
        assert reason.strip() or move in (Move.PROMOTE, Move.ARCHIVE)
        now = stage
        been.append(now)
    for before, after in pairwise(been):
        if after is Stage.PRODUCTION:
            assert before is Stage.STAGING
        if before is Stage.ARCHIVED:
            assert after is Stage.DEVELOPMENT
        assert before is not after


@pytest.mark.parametrize("lowest", WAY)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_stage_reaches_those_before_it_and_the_archive_none(stage: Stage, lowest: Stage) -> None:
    expected = stage in WAY and WAY.index(stage) >= WAY.index(lowest)
    assert stage.reaches(lowest) is expected


def test_a_stage_that_is_none_is_refused_with_those_there_are() -> None:
    assert read_stage("staging") is Stage.STAGING
    with pytest.raises(PilotageError) as refused:
        read_stage("prod")
    assert "development, staging, production, archived" in refused.value.hint
