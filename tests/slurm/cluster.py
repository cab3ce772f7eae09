"""A Slurm cluster of one node on this machine: Debian's `slurm-wlm` and `munge`, everything else in one folder.

    python -m tests.slurm.cluster FOLDER      # until Ctrl-C; prints the line that points your shell to it

It has its own key, ports and state, and touches no Slurm that the machine may have. Its GPUs are device files that
every machine has: Slurm counts them and sets CUDA_VISIBLE_DEVICES, which is all that scheduling needs. There is no
accounting, as on many small clusters.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Debian keeps daemons where an ordinary user's PATH doesn't look.
PROGRAMS_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")

GPUS = ("/dev/null", "/dev/zero")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# No control groups and no accounting: an ordinary machine, or a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# A killed daemon comes back with its node as it was, and without minutes of waiting.
ReturnToService=2
SlurmdTimeout=30
# Jobs that ended stay known for an hour: tests ask what they got.
MinJobAge=3600
MpiDefault=none
GresTypes=gpu
# It may pretend to have more memory than it has, so that jobs can ask for what they would need elsewhere.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Return the programs of Slurm and munge that this machine lacks."""
    return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
    return shutil.which(name, path=PROGRAMS_PATH)


class Cluster:
    """One node with slurmctld, slurmd and munged, started by `start`, ended by `stop`."""

    def __init__(self, folder: Path, memory_mb: int = 1_000_000) -> None:
        """Lay out a cluster below a folder (absolute, and short: sockets have paths of at most 107 characters).

        memory_mb: how much memory it says it has.
        """
        self.folder = folder
        self.environment = os.environ | {
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{folder}/bin{os.pathsep}{PROGRAMS_PATH}",
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        control_port, node_port = _free_ports(2)
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                host=socket.gethostname().split(".")[0],
                user=getpass.getuser(),
                control_port=control_port,
                node_port=node_port,
                cpus=max(8, os.cpu_count() or 1),
                memory_mb=memory_mb,
                gpus=len(GPUS),
            )
        )
        (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in GPUS))
        # Snakemake's plugin takes SLURM_CONF away from the srun inside of a job, which then looks in /etc/slurm.
        srun = folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_program("srun")} "$@"\n')
        srun.chmod(0o755)
        self._run(["mungekey", "--create", "--force", f"--keyfile={folder}/munge.key"])

    def start(self) -> None:
        """Start what isn't running and wait until the node takes jobs; if not, raises `RuntimeError` with the logs."""
        folder = self.folder
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        # munged distrusts folders that others may write to, such as those below /tmp.
        self._start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        wait_until((folder / "munge.socket").exists, 20, self._logs)
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D")
        wait_until(lambda: self.squeue("--noheader") is not None and self._node_is_up(), 60, self._logs)

    def kill(self, daemon: str) -> None:
        """`kill -9` one daemon ("slurmctld" or "slurmd")."""
        process = self._daemons.pop(daemon)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        subprocess.run(["scancel", "--full", "--user", getpass.getuser()], env=self.environment, check=False)
        wait_until(lambda: not self.squeue("--noheader"), 20, lambda: "")
        for daemon in ("slurmd", "slurmctld", "munged"):
            process = self._daemons.pop(daemon, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def squeue(self, *arguments: str) -> str | None:
        """Return what squeue prints, or None while the controller doesn't answer."""
        result = subprocess.run(
            ["squeue", *arguments], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        return None if result.returncode else result.stdout

    def jobs(self) -> str:
        """Return what scontrol says of all jobs, also of those that ended: one per line, `JOB_GRES` is what it got."""
        command = ["scontrol", "--details", "--oneliner", "show", "job"]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def _start(self, daemon: str, *arguments: str) -> None:
        if daemon in self._daemons:
            return
        with open(self.folder / f"{daemon}.out", "ab") as output:
            self._daemons[daemon] = subprocess.Popen(
                [daemon, *arguments], env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def _run(self, command: Sequence[str]) -> None:
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def _node_is_up(self) -> bool:
        result = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"], env=self.environment, capture_output=True, text=True, check=False
        )
        return result.stdout.strip() in ("idle", "mix", "alloc")

    def _logs(self) -> str:
        logs = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in logs)


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def wait_until(condition: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    """Wait until a condition holds; raises `RuntimeError` with an explanation when it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the Slurm cluster did not answer within {seconds:.0f} s\n{explain()}")
        time.sleep(0.2)


def main() -> None:
    """Run a cluster until it is interrupted."""
    folder = Path(sys.argv[1]).resolve()
    cluster = Cluster(folder)
    cluster.start()
    print(f"export SLURM_CONF={folder}/slurm.conf", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        cluster.stop()


if __name__ == "__main__":
    main()
