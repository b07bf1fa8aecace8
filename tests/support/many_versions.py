"""A registry with a hundred thousand versions, written by the database itself in seconds."""

from collections.abc import Mapping

import sqlalchemy as sa

from pilotage.kit.db import Database

MODELS = 100
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
_VERSION = "'ver_' || CAST(1000000000 + i AS TEXT)"
_MODEL = "CASE WHEN i % 5 = 0 THEN 0 ELSE i % :models END"  # the first has a fifth of them all
_STATEMENTS = (
    f"""INSERT INTO model (id, rev, project_id, name, description, created_at_us)
    {_NUMBERS} SELECT 'mdl_' || CAST(1000 + i AS TEXT), 1, :project,
        'model-' || CAST(1000 + i AS TEXT), '', i FROM n WHERE i < :models""",
    f"""INSERT INTO model_version (id, rev, project_id, model_id, version, semver_key, is_release,
        source, license, description, context_tokens, created_at_us, created_by, updated_at_us,
        stage, artifact_uri, tags)
    {_NUMBERS} SELECT {_VERSION}, 1, :project, 'mdl_' || CAST(1000 + {_MODEL} AS TEXT),
        '1.' || CAST(i AS TEXT) || '.0',
        '0110' || CAST(length(CAST(i AS TEXT)) AS TEXT) || CAST(i AS TEXT) || '010~', 1 = 1,
        CASE WHEN i % 3 = 0 THEN 'custom' ELSE 'manual' END, 'MIT', 'tuned on batch', 4096, i,
        'usr_1', i, CASE WHEN i % 1000 = 7 THEN 'production' WHEN i % 100 = 3 THEN 'staging'
        ELSE 'development' END, 'gs://m', '["eu"]' FROM n""",
    f"INSERT INTO version_tag {_NUMBERS} SELECT :project, 'eu', {_VERSION} FROM n WHERE i % 2 = 0",
    f"""INSERT INTO version_tag {_NUMBERS}
    SELECT :project, 'team=' || CAST(i % 50 AS TEXT), {_VERSION} FROM n""",
    f"""INSERT INTO version_tag {_NUMBERS}
    SELECT :project, 'rare', {_VERSION} FROM n WHERE i % 10000 = 2""",
    f"INSERT INTO version_word {_NUMBERS} SELECT :project, 'tuned', {_VERSION} FROM n",
    f"""INSERT INTO version_word {_NUMBERS}
    SELECT :project, 'batch' || CAST(i % 2000 AS TEXT), {_VERSION} FROM n""",
    f"""INSERT INTO version_word {_NUMBERS}
    SELECT :project, 'fraud', {_VERSION} FROM n WHERE i % 20 = 0""",
    *(
        f"""INSERT INTO evidence (id, project_id, version_id, kind, subject, value, value_real,
            unit, hash, run_id, dataset_version_id, tool, note, created_at_us, created_by)
        {_NUMBERS} SELECT 'ev_{number}' || CAST(1000000000 + i AS TEXT), :project, {_VERSION},
            'metric.performance', '{name}', CAST(i * 7919 % 1000 AS TEXT), i * 7919 % 1000,
            '', '', '', '', '', '', i, 'usr_1' FROM n"""
        for number, name in enumerate(("accuracy", "latency_p95"))
    ),
)

ASKED: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "get": ("/models/model-1000/versions/1.50000.0", {}),
    "get evidence": ("/models/model-1000/versions/1.50000.0/evidence", {}),
    "list models": ("/models", {}),
    "list models, newest": ("/models", {"sort": "newest"}),
    "list versions": ("/models/model-1000/versions", {}),
    "list versions, deep": ("/models/model-1000/versions", {"after": "1.99000.0"}),
    "newest": ("/versions", {}),
    "newest, deep": ("/versions", {"after": "ver_1000001000"}),
    "a rare stage": ("/versions", {"stage": "production"}),
    "a common stage": ("/versions", {"stage": "development", "source": "custom"}),
    "a common tag": ("/versions", {"tag": "eu"}),
    "a rare tag": ("/versions", {"tag": "eu,rare"}),
    "a common word": ("/versions", {"q": "tuned"}),
    "a beginning of many words": ("/versions", {"q": "batch"}),
    "a rare word": ("/versions", {"q": "batch1999 tuned"}),
    "two words": ("/versions", {"q": "fraud batch"}),
    "a metric": ("/versions", {"metric": "accuracy>=900"}),
    "a metric that few reach": ("/versions", {"metric": "accuracy>=999,latency_p95>0"}),
    "the best": ("/versions", {"sort": "-accuracy"}),
    "the best, deep": ("/versions", {"sort": "-accuracy", "after": "10.0:ver_1000000500"}),
    "the best of a stage": (
        "/versions",
        {"sort": "-accuracy", "stage": "staging", "tag": "team=3"},
    ),
}


async def fill(database: Database, project_id: str, count: int = 100_000) -> None:
    """Write so many versions of 100 models with tags, words and two metrics each."""
    values = {"project": project_id, "last": count - 1, "models": MODELS}
    async with database.engine.begin() as conn:
        for text in _STATEMENTS:
            statement = sa.text(text)
            await conn.execute(statement, {k: values[k] for k in statement._bindparams})
        await conn.execute(sa.text("ANALYZE"))
