"""The tables of prompts, and all SQL on them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pilotage.core.prompt_table import PublishedPrompt
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.registry.prompts.types import (
    Prompt,
    PromptLabel,
    PromptSummary,
    PromptVersion,
    Provenance,
)

PROMPT = sa.Table(
    "prompt",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("changes", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("project_id", "name"),
)
PROMPT_VERSION = sa.Table(
    "prompt_version",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("prompt_id", sa.Text, sa.ForeignKey("prompt.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("source_repository", sa.Text, nullable=False),
    sa.Column("source_commit", sa.Text, nullable=False),
    sa.Column("source_path", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.UniqueConstraint("prompt_id", "version"),
)
PROMPT_LABEL = sa.Table(
    "prompt_label",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("prompt_id", sa.Text, sa.ForeignKey("prompt.id"), nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, sa.ForeignKey("prompt_version.id"), nullable=False),
    sa.Column("changed_at_us", sa.BigInteger, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.UniqueConstraint("prompt_id", "label"),
)
_SUMMARY = [column for column in PROMPT_VERSION.c if column.name != "content"]

# prompts


async def insert_prompt(tx: Tx, prompt: Prompt) -> None:
    """Add a prompt."""
    await tx.insert(PROMPT, **{name: getattr(prompt, name) for name in Prompt.__dataclass_fields__})


async def find_prompt(tx: Tx, name_or_id: str) -> Prompt | None:
    """Return a prompt by name or id, deleted ones too."""
    named = (PROMPT.c.name == name_or_id) | (PROMPT.c.id == name_or_id)
    row = await tx.find(tx.select(PROMPT).where(named))
    return Prompt(**row) if row else None


async def list_prompts(tx: Tx, after: str, limit: int) -> Sequence[Prompt]:
    """Return living prompts by name."""
    living = tx.select(PROMPT).where(PROMPT.c.deleted_at_us.is_(None), PROMPT.c.name > after)
    return [Prompt(**row) for row in await tx.all(living.order_by(PROMPT.c.name).limit(limit))]


async def change_prompt(tx: Tx, prompt: Prompt, **changed: object) -> bool:
    """Change a prompt, or only count a change below it; False if anything has changed meanwhile."""
    guarded = tx.update(PROMPT).where(
        PROMPT.c.id == prompt.id,
        PROMPT.c.changes == prompt.changes,
        PROMPT.c.deleted_at_us.is_(None),
    )
    return await tx.change(guarded.values(changes=prompt.changes + 1, **changed)) == 1


async def count_changes(tx: Tx) -> tuple[int, int]:
    """Return how many prompts there ever were, and how much has happened to them."""
    row = await tx.find(
        tx.select(
            PROMPT,
            sa.func.count().label("prompts"),
            sa.func.coalesce(sa.func.sum(PROMPT.c.changes), 0).label("changes"),
        )
    )
    return (int(row["prompts"]), int(row["changes"])) if row else (0, 0)


# versions


async def insert_version(tx: Tx, version: PromptVersion) -> None:
    """Add a version."""
    await tx.insert(
        PROMPT_VERSION,
        id=version.id,
        project_id=version.project_id,
        prompt_id=version.prompt_id,
        version=version.version,
        sha256=version.sha256,
        description=version.description,
        content=version.content,
        source_repository=version.provenance.repository,
        source_commit=version.provenance.commit,
        source_path=version.provenance.path,
        created_at_us=version.created_at_us,
        created_by=version.created_by,
    )


async def find_version(tx: Tx, prompt: Prompt, version: str) -> PromptVersion | None:
    """Return a living version of a prompt by its number."""
    row = await tx.find(
        tx.select(PROMPT_VERSION).where(
            PROMPT_VERSION.c.prompt_id == prompt.id,
            PROMPT_VERSION.c.version == version,
            PROMPT_VERSION.c.deleted_at_us.is_(None),
        )
    )
    if row is None:
        return None
    return PromptVersion(content=row["content"], **_values(row, prompt))


async def list_versions(tx: Tx, prompt: Prompt) -> Sequence[PromptSummary]:
    """Return the living versions of a prompt, in no order: semantic versions are not SQL's."""
    statement = tx.select(PROMPT_VERSION, *_SUMMARY).where(
        PROMPT_VERSION.c.prompt_id == prompt.id, PROMPT_VERSION.c.deleted_at_us.is_(None)
    )
    return [PromptSummary(**_values(row, prompt)) for row in await tx.all(statement)]


async def list_numbers(tx: Tx, prompt: Prompt) -> Sequence[str]:
    """Return every version number that a prompt ever had."""
    statement = tx.select(PROMPT_VERSION, PROMPT_VERSION.c.version).where(
        PROMPT_VERSION.c.prompt_id == prompt.id
    )
    return [row["version"] for row in await tx.all(statement)]


async def mark_version_deleted(tx: Tx, version: PromptSummary) -> bool:
    """Turn a version into a tombstone, which keeps its number; False if it is one already."""
    guarded = tx.update(PROMPT_VERSION).where(
        PROMPT_VERSION.c.id == version.id, PROMPT_VERSION.c.deleted_at_us.is_(None)
    )
    return await tx.change(guarded.values(deleted_at_us=tx.now_us)) == 1


async def list_published(tx: Tx) -> Sequence[PublishedPrompt]:
    """Return all that calls may name, with the labels that point there."""
    labels: dict[str, list[str]] = {}
    for row in await tx.all(tx.select(PROMPT_LABEL).order_by(PROMPT_LABEL.c.label)):
        labels.setdefault(row["version_id"], []).append(row["label"])
    statement = (
        tx.select(PROMPT_VERSION, *PROMPT_VERSION.c, PROMPT.c.name)
        .join(PROMPT, PROMPT.c.id == PROMPT_VERSION.c.prompt_id)
        .where(PROMPT_VERSION.c.deleted_at_us.is_(None))
    )
    return [
        PublishedPrompt(
            row["project_id"],
            row["name"],
            row["version"],
            labels.get(row["id"], ()),
            row["content"].encode(),
        )
        for row in await tx.all(statement)
    ]


# labels


async def insert_label(tx: Tx, label: PromptLabel) -> None:
    """Add a label."""
    names = PROMPT_LABEL.c.keys()
    await tx.insert(PROMPT_LABEL, **{name: getattr(label, name) for name in names})


async def move_label(tx: Tx, label: PromptLabel, version_id: str) -> bool:
    """Make a label point to another version; False if it has changed meanwhile."""
    guarded = tx.update(PROMPT_LABEL).where(
        PROMPT_LABEL.c.id == label.id, PROMPT_LABEL.c.rev == label.rev
    )
    changed = guarded.values(
        rev=label.rev + 1,
        version_id=version_id,
        changed_at_us=tx.now_us,
        changed_by=tx.actor.principal_id,
    )
    return await tx.change(changed) == 1


async def delete_label(tx: Tx, label: PromptLabel) -> bool:
    """Remove a label; False if it has changed meanwhile."""
    guarded = tx.delete(PROMPT_LABEL).where(
        PROMPT_LABEL.c.id == label.id, PROMPT_LABEL.c.rev == label.rev
    )
    return await tx.change(guarded) == 1


async def find_label(tx: Tx, prompt: Prompt, label: str) -> PromptLabel | None:
    """Return a label of a prompt."""
    row = await tx.find(_labels(tx, prompt).where(PROMPT_LABEL.c.label == label))
    return PromptLabel(**row) if row else None


async def list_labels(tx: Tx, prompt: Prompt, after: str, limit: int) -> Sequence[PromptLabel]:
    """Return the labels of a prompt by name."""
    behind = _labels(tx, prompt).where(PROMPT_LABEL.c.label > after)
    rows = await tx.all(behind.order_by(PROMPT_LABEL.c.label).limit(limit))
    return [PromptLabel(**row) for row in rows]


def _labels(tx: Tx, prompt: Prompt) -> sa.Select[tuple[object, ...]]:
    return (
        tx.select(PROMPT_LABEL, *PROMPT_LABEL.c, PROMPT_VERSION.c.version)
        .join(PROMPT_VERSION, PROMPT_VERSION.c.id == PROMPT_LABEL.c.version_id)
        .where(PROMPT_LABEL.c.prompt_id == prompt.id)
    )


def _values(row: Row, prompt: Prompt) -> dict[str, Any]:
    same = ("id", "project_id", "prompt_id", "version", "sha256", "description")
    return {
        **{name: row[name] for name in (*same, "created_at_us", "created_by")},
        "prompt": prompt.name,
        "provenance": Provenance(
            repository=row["source_repository"],
            commit=row["source_commit"],
            path=row["source_path"],
        ),
    }
