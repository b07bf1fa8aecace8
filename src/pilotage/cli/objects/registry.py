"""What applying models, their versions and prompts would change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pilotage.cli.models import hash_file, upload
from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import ModelObject, PromptObject, VersionObject
from pilotage.cli.objects.kinds.registry import SAID
from pilotage.cli.objects.step import (
    CHANGED,
    CREATED,
    UNCHANGED,
    Step,
    There,
    compare,
    plan_settings,
)
from pilotage.cli.session import OperationBar, at
from pilotage.core.errors import PilotageError
from pilotage.core.prompts import hash_content, read_content
from pilotage.core.semver import parse_semver
from pilotage.sdk.prompt_files import PromptFile, read_prompt_files


async def plan_model(there: There, document: Document, model: ModelObject) -> Step:
    """Return the step of a model."""
    path = at("models", model.name)
    found = await there.find(document, path)
    if found is not None and model.description in {None, found["description"]}:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        now = await there.control.find(path, project=document.project)  # a package may bring it
        if now is None:
            body = {"name": model.name, "description": model.description or ""}
            await there.control.post("/models", body, project=document.project)
        elif model.description is not None:
            body = {"description": model.description}
            await there.control.put(path, body, rev=now["rev"], project=document.project)

    if found is None:
        return Step(document=document, result=CREATED, act=act)
    differences = compare(found, {"description": model.description})
    return Step(document=document, result=CHANGED, differences=differences, act=act)


async def plan_version(there: There, document: Document, version: VersionObject) -> Step:
    """Return the step of a version; what it runs never changes, what is said of it may."""
    path = at("models", version.model, "versions", version.version)
    found = await there.find(document, path)
    if version.package is not None:
        return _plan_package(there, document, version, found)
    file = None if version.file is None else document.folder / version.file
    if file is not None and not file.is_file():
        raise document.refuse(f"file: {file} is not a file")
    if found is not None:
        _check_same(document, version, found, file)
        return plan_settings(there, document, path, found, version.said, SAID)
    await _check_known(there, document, version)
    artifact: dict[str, Any] = {}

    async def prepare() -> None:
        if file is not None:
            artifact.update(await upload(there.control, file, project=document.project))

    async def act() -> None:
        body = version.body | ({"artifact_sha256": artifact["sha256"]} if artifact else {})
        path = at("models", version.model, "versions")
        await there.control.post(path, body, project=document.project)

    return Step(document=document, result=CREATED, prepare=prepare, act=act)


def _check_same(
    document: Document, version: VersionObject, found: dict[str, Any], file: Path | None
) -> None:
    if found["artifact_sha256"] != (None if file is None else hash_file(file)):
        problem = "it is there already, made of another file"
        raise document.refuse(problem, "Choose a higher version: versions never change.")
    for name, value in version.fixed.items():
        if value != found[name]:
            problem = f"{name}: it is there already, with {found[name]!r}"
            raise document.refuse(problem, "Versions never change: take it out.")


async def _check_known(there: There, document: Document, version: VersionObject) -> None:
    """Raise ``invalid_request`` for a new version whose model or parent will not be there."""
    model, parent = version.model, version.parent
    is_model_made = there.will_make("Model", document, model)
    if not is_model_made and not await there.find(document, at("models", model)):
        raise document.refuse(f"there is no model {model!r}", "Add a document of kind Model.")
    if parent is None or there.will_make("ModelVersion", document, parent):
        return
    name, _, number = parent.partition("@")
    if not number or not await there.find(document, at("models", name, "versions", number)):
        raise document.refuse(f"parent: there is no version {parent!r}")


def _plan_package(
    there: There, document: Document, version: VersionObject, found: dict[str, Any] | None
) -> Step:
    package = version.package or ""
    offered = there.packages.get(package)
    if offered is None:
        known = ", ".join(sorted(there.packages))
        raise document.refuse(f"package: there is no {package!r}", f"There are: {known}.")
    if version.title != f"{package}@{offered}":
        raise document.refuse(f"package: {package} is {package}@{offered}")
    if found is not None:
        if found["source"] != "package":
            raise document.refuse("it is there already, and not from the package")
        return Step(document=document, result=UNCHANGED)

    async def prepare() -> None:
        with OperationBar(f"fetching {package}", is_bytes=True) as watch:
            started = await there.control.post(
                "/models:pull", {"name": package}, project=document.project
            )
            await there.control.finish(started, watch)

    return Step(document=document, result=CREATED, prepare=prepare)


def check_labels(documents: Sequence[Document]) -> None:
    """Raise ``invalid_request`` if two versions of a prompt are to have the same label."""
    holders: dict[tuple[str, str, str], Document] = {}
    for document in documents:
        prompt = document.content
        if not isinstance(prompt, PromptObject):
            continue
        for label in prompt.labels:
            first = holders.setdefault((document.project, prompt.name, label), document)
            if first is not document:
                raise document.refuse(f"labels: {first.content.title} has {label!r} already")


async def plan_prompt(there: There, document: Document, prompt: PromptObject) -> Step:
    """Return the step of a version of a prompt, and of the labels that shall point to it."""
    file = _read_prompt(document, prompt)
    path = at("prompts", prompt.name)
    found = await there.find(document, at("prompts", prompt.name, "versions", prompt.version))
    if found is not None and found["sha256"] != hash_content(file.content):
        problem = "it is there already and says something else"
        raise document.refuse(problem, "Versions never change: give it a higher version.")
    now = {
        label: await there.find(document, at("prompts", prompt.name, "labels", label))
        for label in prompt.labels
    }
    pointed = {label: view["version"] if view else None for label, view in now.items()}
    differences = compare(pointed, dict.fromkeys(prompt.labels, str(file.version)))
    if found is not None and not differences:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        control, project = there.control, document.project
        if found is None:
            if await control.find(path, project=project) is None:
                await control.post("/prompts", {"name": prompt.name}, project=project)
            await control.post(f"{path}/versions", file.make_body(), project=project)
        for label, _, version in differences:
            place = at("prompts", prompt.name, "labels", label)
            before = await control.find(place, project=project)
            rev = before["rev"] if before else None
            await control.put(place, {"version": version}, rev=rev, project=project)

    if found is None:
        return Step(document=document, result=CREATED, act=act)
    return Step(document=document, result=CHANGED, differences=differences, act=act)


def _read_prompt(document: Document, prompt: PromptObject) -> PromptFile:
    if prompt.file is None:
        return PromptFile(
            name=prompt.name,
            version=parse_semver(prompt.version),
            content=read_content(prompt.content),
            path="",
            repository="",
            commit="",
        )
    try:
        (file, *others) = read_prompt_files(document.folder / prompt.file)
    except PilotageError as wrong:
        raise document.refuse(wrong.detail, wrong.hint) from None
    if others or file.ref != prompt.title:
        raise document.refuse(f"file: {prompt.file} holds {file.ref}")
    return file
