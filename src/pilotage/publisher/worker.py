"""Publishes whenever something changed, and renews in time."""

from pilotage.kit.worker import Wakeup, Worker
from pilotage.publisher.service import PublisherService


def make_publisher(service: PublisherService, wakeup: Wakeup) -> Worker:
    """Return the loop that publishes."""
    return Worker("publisher", service.publish, wakeup)
