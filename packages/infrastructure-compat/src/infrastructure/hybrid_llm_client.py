"""The gateway's chain in a Python program."""

from pilotage import HybridLLMClient, HybridLLMConfig

__all__ = ["HybridLLMClient", "HybridLLMConfig"]
