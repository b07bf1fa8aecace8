"""The chain: the steps around a model call, outermost first, folded into one callable."""

from collections.abc import Callable, Sequence

from pilotage.gateway.call import Step

StepMaker = Callable[[Step], Step]


def build_chain(makers: Sequence[StepMaker], innermost: Step) -> Step:
    """Return the first maker's step around the second's, and so on down to the innermost."""
    chain = innermost
    for make in reversed(makers):
        chain = make(chain)
    return chain
