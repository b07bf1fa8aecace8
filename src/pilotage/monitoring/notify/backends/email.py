"""Mail by SMTP: one mail to all recipients, and again to those that did not get it."""

import ssl
from collections.abc import Sequence

from pilotage.core.errors import PilotageError
from pilotage.kit.egress import EgressPolicy
from pilotage.monitoring.notify.backends.certificates import make_context
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.backends.smtp import SmtpError, open_smtp
from pilotage.monitoring.notify.messages import make_mail
from pilotage.monitoring.notify.spec_rules import read_mail_server
from pilotage.monitoring.notify.types import ChannelSpec, Encryption, Notice


class EmailNotifier:
    """Sends notices as mails."""

    def __init__(self, egress: EgressPolicy, secrets: SecretReader) -> None:
        self._secrets = secrets
        self._egress = egress

    async def send(self, spec: ChannelSpec, notice: Notice) -> Sequence[str]:
        """Send a mail; return the recipients that the server refused while it took others."""
        host, port = read_mail_server(spec)
        is_plain = spec.encryption == Encryption.NONE
        context = None if is_plain else make_context(spec.ca_file)
        password = self._secrets.read(spec.secret) if spec.secret else ""
        to = [address for address in spec.to if address in notice.remaining] or spec.to
        mail = make_mail(notice, spec.sender, to).as_bytes()
        try:
            address = (await self._egress.resolve(host, port))[0]
            first = context if spec.encryption == Encryption.TLS else None
            async with open_smtp(host, address, port, first) as client:
                if context is not None and spec.encryption == Encryption.STARTTLS:
                    await client.start_tls(context)
                if spec.username:
                    await client.sign_in(spec.username, password)
                return tuple(await client.send(spec.sender, to, mail))
        except SmtpError as refused:
            raise PilotageError("unavailable", f"{host} refused: {str(refused)[:300]}") from None
        except ssl.SSLError as failed:
            why = f"{host} cannot be trusted: {failed.reason or failed}"
            raise PilotageError("unavailable", why) from None
        except OSError as failed:
            why = failed.strerror or type(failed).__name__
            raise PilotageError("unavailable", f"{host} could not be reached: {why}") from None
