"""Route: from the alias to one arm, by weight, the same arm for the same unit."""

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import choose_arm
from pilotage.gateway.call import Call, Reply, Step

SHOWN_MODELS = 10


class Route:
    """The counting unit is the call itself."""

    def __init__(self, follow: Step) -> None:
        self._follow = follow

    async def __call__(self, call: Call) -> Reply:
        """Assign the arm; raise ``model_not_found``, or ``no_replica`` if no arm has weight."""
        if call.alias is None:
            raise _unknown_model(call)
        call.arm = choose_arm(call.alias.entry, call.id)
        if call.arm is None:
            raise PilotageError(
                "no_replica", f"No deployment of {call.alias_name!r} takes traffic."
            )
        return await self._follow(call)


def _unknown_model(call: Call) -> PilotageError:
    known = [view.entry.name for view in call.view.list_aliases(call.tenant.project_id)]
    hint = "A model is published once it has a deployment and a price; none has."
    if known:
        hint = f"There are: {', '.join(known[:SHOWN_MODELS])}."
    return PilotageError(
        "model_not_found",
        f"The model {call.alias_name!r} does not exist.",
        hint=hint,
        param="model",
    )
