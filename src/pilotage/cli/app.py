"""Every command of ``pilotage``, put together."""

import sys
from typing import Annotated

import typer

import pilotage
from pilotage.cli import (
    access,
    alerts,
    apply,
    approvals,
    audit,
    backup,
    blobs,
    budgets,
    calendar,
    channels,
    chargeback,
    chat,
    config,
    cost,
    datasets,
    decisions,
    doctor,
    drift,
    endpoints,
    gates,
    gateway,
    gateways,
    holds,
    init,
    keys,
    limits,
    metrics,
    migrate,
    models,
    operations,
    past,
    prices,
    principals,
    projects,
    prompts,
    push,
    quality,
    query,
    replays,
    rollouts,
    routes,
    secrets,
    silences,
    slos,
    tenants,
    top,
    traffic,
    up,
    upstreams,
    usage,
    verify,
)
from pilotage.cli.commands import command, make_group
from pilotage.cli.session import show_json

command(models.GROUP)(push.push)  # it builds on them
command(models.GROUP)(gates.promote)
HELP = """\
One gateway for every model call, one release path for every model change.

[bold]Begin[/bold]: pilotage up, and in another terminal: pilotage chat
"""


def make_app() -> typer.Typer:
    """Return the whole command line."""
    app = make_group("pilotage", HELP)
    for function in (
        up.up,
        gateway.gateway,
        init.init,
        doctor.doctor,
        chat.chat,
        apply.plan,
        apply.apply,
        usage.usage,
        top.top,
        metrics.metrics,
        quality.quality,
        query.query,
        past.as_of,
        migrate.migrate,
        backup.backup,
        backup.restore,
        version,
    ):
        command(app)(function)
    for group in (
        models.GROUP,
        datasets.GROUP,
        blobs.GROUP,
        prompts.GROUP,
        endpoints.GROUP,
        rollouts.GROUP,
        replays.GROUP,
        upstreams.GROUP,
        prices.GROUP,
        limits.GROUP,
        cost.GROUP,
        budgets.GROUP,
        chargeback.GROUP,
        traffic.GROUP,
        channels.GROUP,
        routes.ROUTES,
        routes.INHIBITIONS,
        silences.SILENCES,
        silences.NOTICES,
        alerts.GROUP,
        slos.GROUP,
        drift.GROUP,
        quality.FEEDBACK,
        keys.GROUP,
        principals.PRINCIPALS,
        principals.ROLES,
        principals.CREDENTIALS,
        access.GROUP,
        gateways.GROUP,
        tenants.GROUP,
        secrets.GROUP,
        projects.GROUP,
        operations.GROUP,
        approvals.GROUP,
        calendar.GROUP,
        decisions.GROUP,
        gates.GATES,
        gates.POLICY,
        audit.GROUP,
        holds.GROUP,
        verify.GROUP,
        config.GROUP,
    ):
        app.add_typer(group)
    return app


def version(
    *, as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False
) -> None:
    """Show the version.

    [bold]Example[/bold]: pilotage version
    """
    if as_json:
        show_json({"version": pilotage.__version__})
    else:
        sys.stdout.write(f"{pilotage.__version__}\n")
