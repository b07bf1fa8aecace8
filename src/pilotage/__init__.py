"""Pilotage: one gateway for every model call, one release path for every model change."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["HybridLLMClient", "HybridLLMConfig", "__version__"]

if TYPE_CHECKING:
    from pilotage.sdk.hybrid_llm_client import HybridLLMClient, HybridLLMConfig

_HOMES = {
    "HybridLLMClient": "pilotage.sdk.hybrid_llm_client",
    "HybridLLMConfig": "pilotage.sdk.hybrid_llm_client",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    """Load what a program asks for; importing the package loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
