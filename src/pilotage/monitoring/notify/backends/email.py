"""Mail by SMTP: one mail to all recipients, and again to those that were put off."""

import ssl
from ipaddress import ip_address

from pilotage.core.errors import PilotageError
from pilotage.kit.egress import EgressPolicy, is_public
from pilotage.monitoring.notify.backends.certificates import make_context
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.backends.smtp import SmtpError, open_smtp
from pilotage.monitoring.notify.messages import make_mail
from pilotage.monitoring.notify.spec_rules import read_mail_server
from pilotage.monitoring.notify.types import Arrival, ChannelSpec, Encryption, Notice


class EmailNotifier:
    """Sends notices as mails."""

    def __init__(self, egress: EgressPolicy, secrets: SecretReader) -> None:
        self._secrets = secrets
        self._egress = egress

    async def send(self, spec: ChannelSpec, notice: Notice) -> Arrival:
        """Send a mail; return the recipients that the server refused while it took others."""
        host, port = read_mail_server(spec)
        context, password = None, ""
        if spec.encryption != Encryption.NONE:
            context = await make_context(self._secrets, spec.ca_file, notice.project_id)
        if spec.secret:
            password = await self._secrets.read(spec.secret, notice.project_id)
        try:
            addresses = await self._egress.resolve(host, port)
        except OSError as failed:
            raise _unreachable(host, failed) from None
        try:
            return await _send(spec, notice, addresses, context, password)
        except SmtpError as refused:
            # what is said inside the house is not shown: see http_post
            is_shown = refused.said and all(is_public(ip_address(one)) for one in addresses)
            said = f" {refused.said}" if is_shown else ""
            raise PilotageError("unavailable", f"{host} refused: {refused}{said}"[:400]) from None
        except ssl.SSLError as failed:
            why = f"{host} cannot be trusted: {failed.reason or failed}"
            raise PilotageError("unavailable", why) from None
        except OSError as failed:
            self._egress.forget(host, port)
            raise _unreachable(host, failed) from None


async def _send(
    spec: ChannelSpec,
    notice: Notice,
    addresses: tuple[str, ...],
    context: ssl.SSLContext | None,
    password: str,
) -> Arrival:
    """Send a mail to all recipients, or to those that were put off."""
    host, port = read_mail_server(spec)
    to = [address for address in spec.to if address in notice.remaining] or spec.to
    mail = make_mail(notice, spec.sender, to).as_bytes()
    first = context if spec.encryption == Encryption.TLS else None
    async with open_smtp(host, addresses, port, first) as client:
        if context is not None and spec.encryption == Encryption.STARTTLS:
            await client.start_tls(context)
        if spec.username:
            await client.sign_in(spec.username, password)
        refused = await client.send(spec.sender, to, mail)
    if len(refused) == len(to) and not notice.remaining:
        raise SmtpError("; ".join(f"{address}: {code}" for address, code in refused.items()))
    return Arrival(
        later=tuple(address for address, code in refused.items() if code < 500),
        never=tuple(address for address, code in refused.items() if code >= 500),
    )


def _unreachable(host: str, failed: OSError) -> PilotageError:
    why = failed.strerror or type(failed).__name__
    return PilotageError("unavailable", f"{host} could not be reached: {why}")
