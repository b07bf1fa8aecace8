"""Control-plane routes of prompts."""

from datetime import datetime
from typing import Any

import msgspec
from pydantic import Field

from pilotage.core.prompts import Role, Value, VariableType, read_content
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.registry.prompts.service import PromptService
from pilotage.registry.prompts.types import PromptSummary, PromptVersion, Provenance

ONE = "/prompts/{prompt}"
VERSION = "/prompts/{prompt}/versions/{version}"
LABEL = "/prompts/{prompt}/labels/{label}"
READ = "registry.prompts.read"


class PromptBody(Body):
    """A prompt to create; what it says is in its versions."""

    name: str
    description: str = ""


class PromptChange(Body):
    """What is said of a prompt."""

    description: str


class PromptView(RevisedView):
    """A prompt: a named line of versions."""

    name: str
    project_id: str
    description: str
    created_at: datetime


class MessageBody(Body):
    """A message; ``content`` is a template: ``{{ name }}`` stands for a variable."""

    role: Role
    content: str


class VariableBody(Body):
    """A variable: ``values`` are an enum's, ``max_length`` bounds the letters of a string."""

    name: str
    type: VariableType = "string"
    required: bool = True
    default: Value | None = None
    values: list[str] = Field(default_factory=list)
    max_length: int = 0
    description: str = ""


class ParametersBody(Body):
    """What calls get that do not say otherwise."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] = Field(default_factory=list)


class ContentBody(Body):
    """What a version says: ``messages``, or a ``text``, which is one user message.

    Where no variables are declared, each one in the templates is a required string.
    """

    text: str = ""
    messages: list[MessageBody] = Field(default_factory=list)
    variables: list[VariableBody] = Field(default_factory=list)
    response_schema: dict[str, Any] | None = None
    parameters: ParametersBody = ParametersBody()
    description: str = ""


class ProvenanceBody(Body):
    """Where a version was read from: a file of a checkout, and its commit."""

    repository: str = ""
    commit: str = ""
    path: str = ""


class PromptVersionBody(ContentBody):
    """A version to add; it never changes after."""

    version: str
    provenance: ProvenanceBody = ProvenanceBody()


class PromptVersionView(View):
    """A version without what it says; ``sha256`` is the hash of that. Calls name it by ``ref``."""

    id: str
    ref: str
    project_id: str
    prompt: str
    version: str
    sha256: str
    description: str
    provenance: ProvenanceBody
    created_at: datetime
    created_by: str


class PromptContentView(PromptVersionView):
    """A version and what it says."""

    text: str
    messages: list[MessageBody]
    variables: list[VariableBody]
    response_schema: dict[str, Any] | None
    parameters: ParametersBody


class LabelBody(Body):
    """The version that a label shall point to."""

    version: str


class LabelView(RevisedView):
    """A label and the version it points to."""

    project_id: str
    label: str
    version: str
    changed_at: datetime
    changed_by: str


class RenderBody(Body):
    """The values of variables."""

    variables: dict[str, Value | None] = Field(default_factory=dict)


class RenderedView(View):
    """The messages of a call that uses a version."""

    ref: str
    messages: list[MessageBody]


class DiffView(View):
    """What differs between two versions: the lines of a unified diff, none if nothing does."""

    before: str
    after: str
    lines: list[str]


def prompt_routes(service: PromptService) -> list[Route]:
    """List the routes of prompts."""
    return [
        *_prompt_routes(service),
        *_version_routes(service),
        *_use_routes(service),
        *_label_routes(service),
    ]


def _prompt_routes(service: PromptService) -> list[Route]:
    async def create_prompt(call: ApiCall, body: PromptBody) -> PromptView:
        """Create a prompt."""
        async with call.write() as tx:
            return PromptView.of(await service.create_prompt(tx, body.name, body.description))

    async def list_prompts(call: ApiCall, limit: int = 50, after: str = "") -> Page[PromptView]:
        """List prompts by name."""
        async with call.read() as tx:
            found = await service.list_prompts(tx, after, limit + 1)
            return make_page(found, limit, PromptView.of, "name")

    async def get_prompt(call: ApiCall, prompt: str) -> PromptView:
        """Show a prompt."""
        async with call.read() as tx:
            return PromptView.of(await service.get_prompt(tx, prompt))

    async def change_prompt(call: ApiCall, prompt: str, body: PromptChange) -> PromptView:
        """Change what is said of a prompt."""
        async with call.write() as tx:
            return PromptView.of(
                await service.change_prompt(tx, prompt, body.description, call.expected_rev)
            )

    async def delete_prompt(call: ApiCall, prompt: str) -> None:
        """Delete a prompt with its versions; refused while a label points to one of them."""
        async with call.write() as tx:
            await service.delete_prompt(tx, prompt)

    return [
        Route(
            method="POST",
            path="/prompts",
            permission="registry.prompts.create",
            handler=create_prompt,
            status=201,
        ),
        Route(method="GET", path="/prompts", permission=READ, handler=list_prompts),
        Route(method="GET", path=ONE, permission=READ, handler=get_prompt),
        Route(method="PUT", path=ONE, permission="registry.prompts.change", handler=change_prompt),
        Route(
            method="DELETE",
            path=ONE,
            permission="registry.prompts.delete",
            handler=delete_prompt,
            status=204,
        ),
    ]


def _version_routes(service: PromptService) -> list[Route]:
    async def create_prompt_version(
        call: ApiCall, prompt: str, body: PromptVersionBody
    ) -> PromptContentView:
        """Add a version of a prompt."""
        given = body.model_dump(include=set(ContentBody.model_fields))
        provenance = Provenance(**body.provenance.model_dump())
        content = read_content(given)
        async with call.write() as tx:
            return _show_content(
                await service.create_version(tx, prompt, body.version, content, provenance)
            )

    async def list_prompt_versions(
        call: ApiCall, prompt: str, limit: int = 50, after: str = ""
    ) -> Page[PromptVersionView]:
        """List the versions of a prompt, lowest first, without what they say."""
        async with call.read() as tx:
            found = await service.list_versions(tx, prompt, after, limit + 1)
            return make_page(found, limit, _show_version, "version")

    async def get_prompt_version(call: ApiCall, prompt: str, version: str) -> PromptContentView:
        """Show a version by its number, or by a label that points to it."""
        async with call.read() as tx:
            return _show_content(await service.get_version(tx, prompt, version))

    async def delete_prompt_version(call: ApiCall, prompt: str, version: str) -> None:
        """Delete a version; refused while a label points to it. Its number stays taken."""
        async with call.write() as tx:
            await service.delete_version(tx, prompt, version)

    return [
        Route(
            method="POST",
            path="/prompts/{prompt}/versions",
            permission="registry.prompts.create",
            handler=create_prompt_version,
            status=201,
        ),
        Route(
            method="GET",
            path="/prompts/{prompt}/versions",
            permission=READ,
            handler=list_prompt_versions,
        ),
        Route(method="GET", path=VERSION, permission=READ, handler=get_prompt_version),
        Route(
            method="DELETE",
            path=VERSION,
            permission="registry.prompts.delete",
            handler=delete_prompt_version,
            status=204,
        ),
    ]


def _use_routes(service: PromptService) -> list[Route]:
    async def render_prompt(
        call: ApiCall, prompt: str, version: str, body: RenderBody
    ) -> RenderedView:
        """Fill in the variables of a version, given by number or label, as a call would."""
        async with call.read() as tx:
            found, messages = await service.render(tx, prompt, version, body.variables)
        shown = [MessageBody(role=role, content=content) for role, content in messages]
        return RenderedView(ref=found.ref, messages=shown)

    async def diff_prompt_versions(
        call: ApiCall, prompt: str, version: str, other: str
    ) -> DiffView:
        """Show what is different in another version, each given by number or label."""
        async with call.read() as tx:
            old, new, lines = await service.diff_versions(tx, prompt, version, other)
        return DiffView(before=old.ref, after=new.ref, lines=list(lines))

    return [
        Route(
            method="POST",
            path=f"{VERSION}:render",
            permission="registry.prompts.render",
            handler=render_prompt,
        ),
        Route(
            method="GET",
            path=f"{VERSION}/diff/{{other}}",
            permission=READ,
            handler=diff_prompt_versions,
        ),
    ]


def _label_routes(service: PromptService) -> list[Route]:
    async def move_prompt_label(
        call: ApiCall, prompt: str, label: str, body: LabelBody
    ) -> LabelView:
        """Make a label point to a version, at once for all calls that name it."""
        async with call.write() as tx:
            return LabelView.of(
                await service.set_label(tx, prompt, label, body.version, call.expected_rev)
            )

    async def list_prompt_labels(
        call: ApiCall, prompt: str, limit: int = 50, after: str = ""
    ) -> Page[LabelView]:
        """List the labels of a prompt by name."""
        async with call.read() as tx:
            found = await service.list_labels(tx, prompt, after, limit + 1)
            return make_page(found, limit, LabelView.of, "label")

    async def get_prompt_label(call: ApiCall, prompt: str, label: str) -> LabelView:
        """Show where a label points."""
        async with call.read() as tx:
            return LabelView.of(await service.get_label(tx, prompt, label))

    async def delete_prompt_label(call: ApiCall, prompt: str, label: str) -> None:
        """Remove a label; calls that name it are refused from then on."""
        async with call.write() as tx:
            await service.delete_label(tx, prompt, label)

    return [
        Route(
            method="GET",
            path="/prompts/{prompt}/labels",
            permission=READ,
            handler=list_prompt_labels,
        ),
        Route(method="GET", path=LABEL, permission=READ, handler=get_prompt_label),
        Route(
            method="PUT", path=LABEL, permission="registry.prompts.tag", handler=move_prompt_label
        ),
        Route(
            method="DELETE",
            path=LABEL,
            permission="registry.prompts.tag",
            handler=delete_prompt_label,
            status=204,
        ),
    ]


def _show_version(version: PromptSummary) -> PromptVersionView:
    return PromptVersionView.of(version, provenance=_show_provenance(version))


def _show_content(version: PromptVersion) -> PromptContentView:
    content = msgspec.json.decode(version.content)
    said = ContentBody.model_validate(content)
    return PromptContentView.of(
        version,
        provenance=_show_provenance(version),
        **{name: getattr(said, name) for name in ContentBody.model_fields},
    )


def _show_provenance(version: PromptSummary) -> ProvenanceBody:
    source = version.provenance
    return ProvenanceBody(repository=source.repository, commit=source.commit, path=source.path)
