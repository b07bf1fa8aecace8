"""Put two versions of a model behind an endpoint, ask them, and share its traffic between them.

    python model_endpoints.py routing@1.0.0 routing@1.1.0

Run it with the Python that Pilotage is installed in; the versions need a price
(``pilotage prices set routing --free``). It uses the live installation, or runs one for as long as
it lasts.
"""

import asyncio
import sys

from pilotage import AutoScalingConfig, EndpointConfig, ModelEndpoints, TrafficSplit
from pilotage.core.errors import PilotageError

ENDPOINT = EndpointConfig(
    name="router",
    labels={"made-by": "example"},
    auto_scaling=AutoScalingConfig(max_replica_count=2),
)


async def main(first: str, second: str = "") -> int:
    """Create, deploy, predict, split; 1 if something is refused."""
    async with ModelEndpoints() as endpoints:
        try:
            endpoint = await endpoints.create_endpoint(ENDPOINT)
            splits = {}
            for ref in filter(None, (first, second)):
                name, _, version = ref.partition("@")
                deployed = await endpoints.deploy_model(endpoint.name, name, version or "1.0.0")
                splits[deployed] = 50.0 if second else 100.0
            await endpoints.update_traffic_split(endpoint.name, TrafficSplit(splits=splits))
            found = await endpoints.predict(
                endpoint.name,
                instances=[{"prompt": "Who answers this?"}, {"prompt": "And this?"}],
                parameters={"maxOutputTokens": 16},
            )
            for prediction in found["predictions"]:
                print("answer:", prediction["content"])
            stats = await endpoints.get_endpoint_stats(endpoint.name)
            for item in stats["deployed_models"]:
                print(f"{item['model']}: {item['traffic_percentage']:g} %")
            print("status:", stats["status"])
        except PilotageError as refused:
            print(f"failed: {refused.code}: {refused}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:3])))
