"""Register two versions of a model from Python, measure them and compare them.

    python model_registry.py gs://my-bucket/models/routing my-project

Run it with the Python that Pilotage is installed in. ``gs://BUCKET/PATH`` is a model file, or a
folder, at ``gs/BUCKET/PATH`` in the data folder. It uses the live installation, or opens its
control plane for as long as it lasts.
"""

import asyncio
import sys

from pilotage import ModelMetadata, ModelRegistry, ModelSource
from pilotage.core.errors import PilotageError

MEASURED = {
    "1.0.0": {"accuracy": 0.92, "latency_p95": 234.5},
    "1.1.0": {"accuracy": 0.966, "latency_p95": 175.875},
}


async def main(artifact_uri: str, project: str = "default") -> int:
    """Upload, measure, compare, list; 1 if something is refused."""
    async with ModelRegistry(project) as registry:
        try:
            for version, metrics in MEASURED.items():
                metadata = ModelMetadata(
                    name="routing",
                    version=version,
                    source=ModelSource.CUSTOM_TRAINING,
                    artifact_uri=artifact_uri,
                    tags=["routing"],
                )
                model = await registry.upload_model(metadata)
                print("uploaded:", model.resource_name)
                await registry.update_performance_metrics(
                    "routing", version, metrics, run_id=f"bench-{version}", n=500
                )
            found = await registry.compare_versions("routing", "1.0.0", "1.1.0")
            print("recommendation:", found["recommendation"])
            for item in await registry.list_models(tags=["routing"]):
                print("listed:", item.version, item.deployment_stage.value)
        except PilotageError as refused:
            print(f"failed: {refused.code}: {refused}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:3])))
