"""Complete text from a Python program without HTTP: the gateway's chain in this process.

    python hybrid_client.py smollm2 support

Run it with the Python that Pilotage is installed in. The words are endpoints, asked in this order
until one answers; without any, local models come first, then providers. Keys, limits, routes and
records are those of the gateway. It uses the live installation, or runs one for as long as it
lasts.
"""

import asyncio
import sys

from pilotage import HybridLLMClient, HybridLLMConfig
from pilotage.core.errors import PilotageError

QUESTION = "What is the capital of France? Answer in one sentence."


async def main(cascade: list[str]) -> int:
    """Ask once; 1 if nobody answers."""
    async with HybridLLMClient(HybridLLMConfig(cascade=cascade)) as client:
        try:
            text = await client.complete_text(QUESTION, temperature=0, max_tokens=64)
        except PilotageError as failed:
            print(f"failed: {failed.code}: {failed}", file=sys.stderr)
            return 1
        print("answer:", text)
        for name, value in client.get_metrics().items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
