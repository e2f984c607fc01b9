"""The MLflow runs of a study as JSON: `python mlflow_facts.py URI STUDY`."""

from __future__ import annotations

import json
import sys

from mlflow.tracking import MlflowClient


def main(uri: str, study: str) -> None:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    found = [
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "kind": run.data.tags.get("kind"),
            "signature": run.data.tags.get("signature"),
            "curves": {
                name: sorted([point.step, point.value] for point in client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
            },
            "artefacts": len(client.list_artifacts(run.info.run_id)),
        }
        for run in runs
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
