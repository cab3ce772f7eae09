"""Jobs of a Kubernetes cluster, for Snakemake's cluster-generic executor: submit, status and cancel, by kubectl.

A job runs in a pod of its own, on the volume on which Snakemake runs, mounted at the same place. kubectl's current
context says which cluster and namespace.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LABEL = "pretrained-visual-uncertainties"
SECONDS_TO_LOOK_BACK = 24 * 60 * 60  # a finished job stays this long, for `kubectl logs`
ATTEMPTS = 5


def job_manifest(options: argparse.Namespace) -> dict[str, Any]:
    """Return the Job that runs a script of Snakemake's in a pod with what its rule asks for."""
    limits = {"memory": f"{options.memory_mb}M"} | ({"nvidia.com/gpu": options.gpus} if options.gpus else {})
    container = {
        "name": "job",
        "image": options.image,
        "command": ["/bin/sh", str(options.script.resolve())],
        "workingDir": str(Path.cwd()),
        "resources": {"requests": {"cpu": max(options.threads, options.cpus_per_task)} | limits, "limits": limits},
        "volumeMounts": [
            {"name": "shared", "mountPath": options.mount},
            {"name": "memory", "mountPath": "/dev/shm"},
        ],
    }
    pod = {
        "restartPolicy": "Never",
        # Of the pod: that of a Job also counts the time in which it waits for a machine.
        "activeDeadlineSeconds": 60 * options.minutes,
        "containers": [container],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": options.claim}},
            # For NCCL between the GPUs of a job: a container has 64 MB of shared memory unless told otherwise.
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{LABEL}-", "labels": {"app": LABEL}},
        "spec": {
            "backoffLimit": 0,  # Snakemake decides about another attempt
            "ttlSecondsAfterFinished": SECONDS_TO_LOOK_BACK,
            "template": {"metadata": {"labels": {"app": LABEL}}, "spec": pod},
        },
    }


def submit(options: argparse.Namespace) -> None:
    """Create the Job and print its name."""
    manifest = json.dumps(job_manifest(options))
    print(kubectl("create", "--filename=-", "--output=jsonpath={.metadata.name}", input=manifest))


def status(options: argparse.Namespace) -> None:
    """Print success, failed or running. A Job that is gone has failed: somebody deleted it."""
    for attempt in range(ATTEMPTS):
        try:
            answer = kubectl("get", "job", options.name, "--ignore-not-found", "--output=json")
        except subprocess.CalledProcessError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(10)  # the cluster's interface is away for a moment
        else:
            break
    found = json.loads(answer)["status"] if answer else {"failed": 1}
    print("success" if found.get("succeeded") else "failed" if found.get("failed") else "running")


def cancel(options: argparse.Namespace) -> None:
    """Delete the Jobs and their pods."""
    kubectl("delete", "job", *options.names, "--ignore-not-found", "--wait=false")


def kubectl(*arguments: str, input: str | None = None) -> str:
    """Return what kubectl prints; what it complains of goes to stderr."""
    command = ["kubectl", *arguments]
    return subprocess.run(command, input=input, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> int:
    """Run one of the commands that the profile names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    submitting = commands.add_parser("submit", help="create a Job, print its name")
    submitting.add_argument("--image", required=True, help="container image with this pipeline's environment")
    submitting.add_argument("--claim", required=True, help="persistent volume claim with the repository and results")
    submitting.add_argument("--mount", required=True, help="where Snakemake sees that volume")
    for name in ("--threads", "--cpus-per-task", "--memory-mb", "--minutes", "--gpus"):
        submitting.add_argument(name, type=int, required=True)
    submitting.add_argument("script", type=Path)
    submitting.set_defaults(run=submit)
    asking = commands.add_parser("status", help="print success, failed or running")
    asking.add_argument("name")
    asking.set_defaults(run=status)
    cancelling = commands.add_parser("cancel", help="delete Jobs")
    cancelling.add_argument("names", nargs="+")
    cancelling.set_defaults(run=cancel)
    options = parser.parse_args()
    try:
        options.run(options)
    except subprocess.CalledProcessError as error:
        print(f"kubectl ended with {error.returncode}; is its context the right one?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
