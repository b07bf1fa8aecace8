"""The page of the control process."""

from pilotage.kit.api import RawCall, RawReply, RawRoute
from pilotage.monitoring.exports.exposition import MEDIA_TYPE, render
from pilotage.monitoring.exports.service import Exports


def export_pages(exports: Exports) -> list[RawRoute]:
    """List the pages that stand beside the API, at the root of the control process."""

    async def show_metrics(_: RawCall) -> RawReply:
        """Show every metric in Prometheus' text format."""
        return RawReply(body=render(await exports.collect()), media_type=MEDIA_TYPE)

    return [
        RawRoute(
            method="GET",
            path="/metrics",
            permission="monitoring.exposition.read",
            handler=show_metrics,
            is_global=True,
        )
    ]
