"""Job files that encode a collection in shares: a Slurm array, and an indexed job of Kubernetes.

In: the words of a command, the number of shares. Out: text of files, to be looked through and
submitted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

__all__ = ["kubernetes_job", "slurm_array"]


def slurm_array(words: Sequence[str], shares: int, gpus: int = 1) -> str:
    """A script for ``sbatch``: one task of an array for each share."""
    command = shlex.join(words)
    device = f"#SBATCH --gpus={gpus}\n" if gpus else ""
    return (
        "#!/bin/bash\n"
        "#SBATCH --job-name=era-embed\n"
        f"#SBATCH --array=1-{shares}\n"
        f"{device}"
        "#SBATCH --output=era-embed-%a.log\n"
        "# A share that fails can be submitted again: sbatch --array=N slurm.sh\n"
        f"{command} --shard $SLURM_ARRAY_TASK_ID/{shares}\n"
    )


def kubernetes_job(words: Sequence[str], shares: int, gpus: int = 1) -> str:
    """An indexed job; image and volume must be filled in. JSON, which is YAML, too."""
    run = f"{shlex.join(words)} --shard $((JOB_COMPLETION_INDEX + 1))/{shares}"
    limits = {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}
    container = {
        "name": "era-embed",
        "image": "YOUR-IMAGE-WITH-ERA-CACHE",
        "command": ["sh", "-c", run],
        "resources": limits,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "era-embed"},
        "spec": {
            "completionMode": "Indexed",
            "completions": shares,
            "parallelism": shares,
            "backoffLimitPerIndex": 3,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [container],
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": "YOUR-CLAIM"}}
                    ],
                }
            },
        },
    }
    return json.dumps(job, indent=2) + "\n"
