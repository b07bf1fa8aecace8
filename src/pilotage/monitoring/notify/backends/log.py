"""The control plane's own log, in one line for each alert."""

import logging

from pilotage.monitoring.alerts.types import AlertState, Severity
from pilotage.monitoring.notify.messages import make_title
from pilotage.monitoring.notify.rules import list_labels
from pilotage.monitoring.notify.types import ARRIVED, Arrival, ChannelSpec, Notice

_LOG = logging.getLogger("pilotage.notices")
_LOUD = {Severity.ERROR, Severity.CRITICAL}


class LogNotifier:
    """Writes notices to the log."""

    async def send(self, spec: ChannelSpec, notice: Notice) -> Arrival:
        """Write a notice."""
        del spec
        for alert in notice.message.alerts:
            is_firing = alert.state == AlertState.FIRING
            level = logging.ERROR if is_firing and alert.severity in _LOUD else logging.WARNING
            labels = " ".join(f"{name}={text}" for name, text in sorted(list_labels(alert).items()))
            said = f"{alert.rule}: {alert.summary or alert.condition}; {labels}"
            _LOG.log(
                level if is_firing else logging.INFO,
                "%s %s (notice %s)",
                make_title(notice.message),
                " ".join(said.split()),  # a line is a line
                notice.id,
            )
        return ARRIVED
