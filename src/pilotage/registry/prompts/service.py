"""The verbs of prompts. Never commits: whoever opened the transaction does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.core.prompt_table import PublishedPrompt
from pilotage.core.prompts import (
    MAX_CONTENT_BYTES,
    Filled,
    PromptContent,
    check_label,
    compile_prompt,
    decode_content,
    encode_content,
    hash_content,
)
from pilotage.core.semver import SemVer, parse_semver
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision
from pilotage.registry.prompts import store
from pilotage.registry.prompts.rules import diff_contents, is_taken, sort_prompt_versions
from pilotage.registry.prompts.types import (
    Prompt,
    PromptLabel,
    PromptSummary,
    PromptVersion,
    Provenance,
)
from pilotage.registry.rules import check_version

MOST_RENDERED = 4 * MAX_CONTENT_BYTES  # letters that a try of a prompt may come to
EVERYTHING = 1_000_000
TAG = "registry.prompts.tag"  # the permission, and the action that a freeze forbids
_TYPED_IN = Provenance()


class PromptService:
    """Prompts of projects, their versions and labels.

    What a label says is what calls do: moving one is a decision on record, and waits for freezes.
    """

    def __init__(self, clock: Clock, governance: GovernanceService) -> None:
        self._clock = clock
        self._governance = governance

    # prompts

    async def create_prompt(self, tx: Tx, name: str, description: str = "") -> Prompt:
        """Create a prompt; raise ``already_exists`` if there is or was one of that name."""
        there = await store.find_prompt(tx, check_name(name))
        if there is not None:
            was = "was" if there.deleted_at_us else "is"
            raise PilotageError(
                "already_exists",
                f"There {was} a prompt {name!r} already.",
                hint="Choose another name: records of calls tell prompts apart by it.",
                param="name",
            )
        prompt = Prompt(
            id=self._clock.new_id("pmt"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            description=description,
            changes=1,
            created_at_us=tx.now_us,
            deleted_at_us=None,
        )
        await store.insert_prompt(tx, prompt)
        await append_revision(tx, "registry.prompt.created", prompt.id, 1, prompt)
        return prompt

    async def get_prompt(self, tx: Tx, name_or_id: str) -> Prompt:
        """Return a living prompt by name or id; raise ``not_found``."""
        prompt = await store.find_prompt(tx, name_or_id)
        if prompt is None or prompt.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no prompt {name_or_id!r}.",
                hint="List them: pilotage prompts list",
                param="prompt",
            )
        return prompt

    async def list_prompts(
        self, tx: Tx, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[Prompt]:
        """Return living prompts by name."""
        return await store.list_prompts(tx, after, limit)

    async def change_prompt(
        self, tx: Tx, name_or_id: str, description: str, expected_rev: int | None = None
    ) -> Prompt:
        """Change what is said of a prompt; raise ``precondition_failed`` if it has changed."""
        prompt = await self.get_prompt(tx, name_or_id)
        if expected_rev not in (None, prompt.rev):
            raise _changed(prompt.name)
        if prompt.description == description:
            return prompt
        after = replace(prompt, rev=prompt.rev + 1, description=description)
        await self._touch(tx, prompt, rev=after.rev, description=description)
        await append_revision(tx, "registry.prompt.changed", prompt.id, after.rev, after, prompt)
        return replace(after, changes=prompt.changes + 1)

    async def delete_prompt(self, tx: Tx, name_or_id: str) -> None:
        """Delete a prompt with its versions; raise ``conflict`` while a label points to one."""
        prompt = await self.get_prompt(tx, name_or_id)
        labels = await store.list_labels(tx, prompt, "", EVERYTHING)
        if labels:
            raise _is_released(prompt.name, labels)
        await self._touch(tx, prompt, rev=prompt.rev + 1, deleted_at_us=tx.now_us)
        for version in await store.list_versions(tx, prompt):
            await self._bury(tx, version)
        gone = {"id": prompt.id, "name": prompt.name}
        await append_revision(
            tx, "registry.prompt.deleted", prompt.id, prompt.rev + 1, gone, prompt
        )

    # versions

    async def create_version(
        self,
        tx: Tx,
        name_or_id: str,
        version: str,
        content: PromptContent,
        provenance: Provenance = _TYPED_IN,
    ) -> PromptVersion:
        """Add a version of a checked content; raise ``already_exists`` for a taken number.

        Numbers of deleted versions stay taken: records of calls name them.
        """
        number = check_version(version)
        prompt = await self.get_prompt(tx, name_or_id)
        if is_taken(await store.list_numbers(tx, prompt), number):
            raise PilotageError(
                "already_exists",
                f"There is, or was, a version {prompt.name}@{number} already.",
                hint="Choose a higher version: versions never change.",
                param="version",
            )
        made = PromptVersion(
            id=self._clock.new_id("pmv"),
            project_id=prompt.project_id,
            prompt_id=prompt.id,
            prompt=prompt.name,
            version=str(number),
            sha256=hash_content(content),
            description=content.description,
            content=encode_content(content).decode(),
            provenance=provenance,
            created_at_us=tx.now_us,
            created_by=tx.actor.principal_id,
        )
        await self._touch(tx, prompt)
        await store.insert_version(tx, made)
        await append_revision(tx, "registry.prompt_version.created", made.id, 1, made)
        return made

    async def get_version(self, tx: Tx, name_or_id: str, release: str) -> PromptVersion:
        """Return a version by its number or by a label that points to it; raise ``not_found``."""
        prompt = await self.get_prompt(tx, name_or_id)
        number = _find_number(release)
        if number is None:
            label = await store.find_label(tx, prompt, release)
            wanted = label.version if label else ""
        else:
            wanted = str(number)
        found = await store.find_version(tx, prompt, wanted) if wanted else None
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no version or label {prompt.name}@{release}.",
                hint=f"List them: pilotage prompts show {prompt.name}",
                param="version",
            )
        return found

    async def list_versions(
        self, tx: Tx, name_or_id: str, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[PromptSummary]:
        """Return the versions of a prompt above one, from lowest to highest."""
        prompt = await self.get_prompt(tx, name_or_id)
        ordered = sort_prompt_versions(await store.list_versions(tx, prompt))
        if after:
            border = check_version(after)
            ordered = [item for item in ordered if parse_semver(item.version) > border]
        return ordered[:limit]

    async def delete_version(self, tx: Tx, name_or_id: str, version: str) -> None:
        """Delete a version; raise ``conflict`` while a label points to it."""
        check_version(version)
        prompt = await self.get_prompt(tx, name_or_id)
        found = await self.get_version(tx, name_or_id, version)
        labels = await store.list_labels(tx, prompt, "", EVERYTHING)
        pointing = [label for label in labels if label.version_id == found.id]
        if pointing:
            raise _is_released(found.ref, pointing)
        await self._touch(tx, prompt)
        await self._bury(tx, found)

    async def diff_versions(
        self, tx: Tx, name_or_id: str, before: str, after: str
    ) -> tuple[PromptVersion, PromptVersion, Sequence[str]]:
        """Return two versions and what differs between them as the lines of a unified diff."""
        old = await self.get_version(tx, name_or_id, before)
        new = await self.get_version(tx, name_or_id, after)
        contents = decode_content(old.content), decode_content(new.content)
        return old, new, diff_contents(*contents, (old.ref, new.ref))

    async def render(
        self, tx: Tx, name_or_id: str, release: str, values: Mapping[str, object]
    ) -> tuple[PromptVersion, list[Filled]]:
        """Return a version and its messages with the variables filled in, as a call would."""
        version = await self.get_version(tx, name_or_id, release)
        ready = compile_prompt(version.ref, decode_content(version.content))
        return version, ready.fill(values, MOST_RENDERED)

    # labels

    async def set_label(
        self, tx: Tx, name_or_id: str, label: str, version: str, expected_rev: int | None = None
    ) -> PromptLabel:
        """Make a label point to a version; calls that name the label use it from then on.

        Raises ``precondition_failed`` if the label is not at the expected revision any more, and
        ``frozen`` inside a freeze.
        """
        check_label(label)
        check_version(version)
        prompt = await self.get_prompt(tx, name_or_id)
        target = await self.get_version(tx, name_or_id, version)
        there = await store.find_label(tx, prompt, label)
        if expected_rev is not None and (there is None or there.rev != expected_rev):
            raise _changed(f"{prompt.name}@{label}")
        if there is not None and there.version_id == target.id:
            return there
        await self._governance.check_calendar(tx, TAG, f"{prompt.name}@{label}")
        await self._touch(tx, prompt)
        moved = PromptLabel(
            id=there.id if there else self._clock.new_id("pml"),
            rev=there.rev + 1 if there else 1,
            project_id=prompt.project_id,
            prompt_id=prompt.id,
            label=label,
            version_id=target.id,
            version=target.version,
            changed_at_us=tx.now_us,
            changed_by=tx.actor.principal_id,
        )
        if there is None:
            await store.insert_label(tx, moved)
        elif not await store.move_label(tx, there, target.id):
            raise _changed(f"{prompt.name}@{label}")
        await append_revision(tx, "registry.prompt_label.moved", moved.id, moved.rev, moved, there)
        await self._record(tx, prompt, there, moved, evidence=(target.sha256,))
        return moved

    async def get_label(self, tx: Tx, name_or_id: str, label: str) -> PromptLabel:
        """Return a label; raise ``not_found``."""
        prompt = await self.get_prompt(tx, name_or_id)
        found = await store.find_label(tx, prompt, label)
        if found is None:
            raise PilotageError(
                "not_found",
                f"There is no label {prompt.name}@{label}.",
                hint=f"List them: pilotage prompts show {prompt.name}",
                param="label",
            )
        return found

    async def list_labels(
        self, tx: Tx, name_or_id: str, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[PromptLabel]:
        """Return the labels of a prompt by name."""
        return await store.list_labels(tx, await self.get_prompt(tx, name_or_id), after, limit)

    async def delete_label(self, tx: Tx, name_or_id: str, label: str) -> None:
        """Remove a label: calls that name it are refused from then on."""
        prompt = await self.get_prompt(tx, name_or_id)
        found = await self.get_label(tx, name_or_id, label)
        await self._governance.check_calendar(tx, TAG, f"{prompt.name}@{label}")
        await self._touch(tx, prompt)
        if not await store.delete_label(tx, found):
            raise _changed(f"{prompt.name}@{label}")
        gone = {"id": found.id, "prompt": prompt.name, "label": label}
        await append_revision(
            tx, "registry.prompt_label.removed", found.id, found.rev + 1, gone, found
        )
        await self._record(tx, prompt, found, None)

    # for the publisher

    async def mark_prompts(self, tx: Tx) -> str:
        """Return a text that changes with every change of any prompt, and is cheap to ask for."""
        prompts, changes = await store.count_changes(tx)
        return f"{prompts}/{changes}"

    async def list_published(self, tx: Tx) -> Sequence[PublishedPrompt]:
        """Return all that calls may name."""
        return await store.list_published(tx)

    async def _record(
        self,
        tx: Tx,
        prompt: Prompt,
        before: PromptLabel | None,
        after: PromptLabel | None,
        evidence: Sequence[str] = (),
    ) -> None:
        """Record what a label says from now on, and how it is taken back."""
        label = after or before
        if label is None:
            return
        versions = [None if item is None else {"version": item.version} for item in (before, after)]
        decision = await self._governance.record_change(
            tx,
            kind=DecisionKind.PROMPT,
            subject_id=label.id,
            subject=f"{prompt.name}@{label.label}",
            before=versions[0],
            after=versions[1],
            evidence=evidence,
        )
        if before is not None:
            ref = f"{prompt.name}@{before.version}"
            way = {"to": ref, "command": f"pilotage prompts tag {ref} {label.label}"}
            await self._governance.add_fact(tx, decision.id, "rollback", way)

    async def _touch(self, tx: Tx, prompt: Prompt, **changed: object) -> None:
        """Count a change; raise ``precondition_failed`` if there was another one meanwhile."""
        if not await store.change_prompt(tx, prompt, **changed):
            raise _changed(prompt.name)

    async def _bury(self, tx: Tx, version: PromptSummary) -> None:
        if not await store.mark_version_deleted(tx, version):
            raise _changed(version.ref)
        gone = {"id": version.id, "ref": version.ref}
        await append_revision(tx, "registry.prompt_version.deleted", version.id, 2, gone, version)


def _find_number(release: str) -> SemVer | None:
    """Return a release as a version number, None if it can only be a label."""
    try:
        return parse_semver(release)
    except ValueError:
        return None


def _is_released(what: str, labels: Sequence[PromptLabel]) -> PilotageError:
    names = ", ".join(label.label for label in labels)
    return PilotageError(
        "conflict",
        f"{what} is released as {names}.",
        hint="Move the label to another version, or remove it: pilotage prompts untag",
    )


def _changed(what: str) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"Prompt {what} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )
