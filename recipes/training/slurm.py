"""`--slurm`: a batch script that runs a command of vfm on a cluster, and starts it again where its time was too short.

    sbatch script -> srun, one task a process -> python -m vfm_cli <the same words> --resume

Some time before the limit Slurm sends SIGUSR1 to every task. The run saves at the end of its step and leaves with exit code 138; the script
then puts its own job back into the queue, if anything was saved. SIGTERM saves as well and is not requeued: it is how a person cancels a job,
and a job that was preempted Slurm requeues by itself (`--requeue`).

submitit writes the script and submits it. What it usually puts into a job, a pickled function, is not used: the job is a command line.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from domains.errors import ConfigError
from domains.schema import Strict, nearest, parse

REQUEUE = 138  # 128 + SIGUSR1: what `Interrupted` ends with, and a process that dies of it before it listens
JOB = "vfm"  # the name that others see in the queue: nothing of the data, the run or the person
SCRIPT = "job.sh"

# Set by the script, which would not work with another value.
OURS = ("chdir", "error", "job-name", "ntasks-per-node", "open-mode", "output", "requeue", "signal")


class SlurmSettings(Strict):
    """What is asked of Slurm, one field an option of sbatch; `none` leaves it to the cluster."""

    partition: str | None = Field(None, description="partition")
    account: str | None = Field(None, description="account that pays")
    qos: str | None = Field(None, description="quality of service")
    reservation: str | None = Field(None, description="reservation")
    constraint: str | None = Field(None, description="features that nodes must have")
    exclude: str | None = Field(None, description="nodes that are not wanted")
    nodelist: str | None = Field(None, description="nodes that are wanted")
    dependency: str | None = Field(None, description="jobs to wait for, as sbatch writes them")
    time: str | None = Field(
        None, description="limit of one stay: minutes, H:M:S or days-H:M:S; the run takes as many as it needs"
    )
    nodes: PositiveInt = Field(1, description="machines")
    gpus: PositiveInt | None = Field(None, description="GPUs of a machine, one process each")
    gres: str | None = Field(None, description="the same where a cluster wants gres=gpu:N; say processes as well")
    processes: PositiveInt | None = Field(None, description="processes of a machine; default: its gpus, else 1")
    cpus: PositiveInt | None = Field(None, description="cores of a process; default: one and its loader processes")
    mem: str | None = Field(None, description="memory of a machine, e.g. 64G")
    exclusive: bool | None = Field(None, description="no other jobs on these machines")
    warning: PositiveInt = Field(
        120, description="seconds before the limit at which the run saves; more than a step and a checkpoint"
    )

    @classmethod
    def of(cls, words: Sequence[str]) -> SlurmSettings:
        """From `key=value` words. Raises ConfigError, with the nearest key for an unknown one."""
        values: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not (key and equals and value.isprintable()):
                raise ConfigError(f"'{word}' is not key=value", where="--slurm-option", do="For example: time=24:00:00")
            if key in OURS:
                do = f"Leave it out. {nearest('', list(cls.model_fields))}"
                raise ConfigError(f"'{key}' is set by vfm", where="--slurm-option", do=do)
            values[key] = value
        return parse(cls, values, "--slurm-option")

    @property
    def tasks(self) -> int:
        """Processes of a machine."""
        return self.processes or self.gpus or 1

    def sbatch(self) -> dict[str, Any]:
        """sbatch's own words for what was asked."""
        names = {"gpus": "gpus-per-node"}
        kept = self.model_dump(exclude={"nodes", "processes", "cpus", "warning"}, exclude_none=True)
        asked = {names.get(name, name): value for name, value in kept.items() if value is not False}
        return {**asked, "signal": f"USR1@{self.warning}", "requeue": True, "chdir": str(Path.cwd())}


@dataclass(frozen=True)
class Job:
    """A job as it was written: its script, the folder of its logs, and its number, None where it was not submitted."""

    script: Path
    logs: Path
    number: str | None


def write_job(words: Sequence[str], out: Path, asked: SlurmSettings, workers: int, *, submit: bool) -> Job:
    """Write the job that runs `vfm <words>` into the run folder `out`, and submit it unless told not to.

    words: of a command that goes on with `--resume`, which is added. workers: loader processes of a process. The script and the logs lie in
    `<out>.slurm`, beside the run. Raises ConfigError where submitit or Slurm is missing, or Slurm refuses the job.
    """
    try:
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.slurm.slurm import SlurmExecutor
    except ModuleNotFoundError:
        do = 'Install it: pip install "vfm[slurm]"'
        raise ConfigError("--slurm needs a package that is not installed: submitit", do=do) from None

    class Executor(SlurmExecutor):
        """submitit's, which also writes scripts on a machine without Slurm."""

        @classmethod
        def affinity(cls) -> int:
            """See SlurmExecutor."""
            return 2

    folder = out.absolute().with_name(f"{out.name}.slurm")
    cpus = asked.cpus or workers + 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        executor = Executor(folder)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=folder, do="Choose another --out") from None
    executor.update_parameters(
        job_name=JOB, nodes=asked.nodes, ntasks_per_node=asked.tasks, cpus_per_task=cpus, time=None, wckey=None, stderr_to_stdout=True,
        additional_parameters=asked.sbatch(), setup=before(out.absolute(), folder, asked), teardown=afterwards(asked),
        srun_args=["--kill-on-bad-exit=1", "--wait=0", "--open-mode=append", f"--cpus-per-task={cpus}"],
    )  # fmt: skip
    command = task([sys.executable, "-u", "-m", "vfm_cli", *words, *([] if "--resume" in words else ["--resume"])])
    if not submit:
        script = folder / SCRIPT
        script.write_text(executor._make_submission_file_text(command, "") + "\n", encoding="utf-8")
        return Job(script, folder, None)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it repeats what sbatch said
            number = str(executor._submit_command(command).job_id)
    except FileNotFoundError:
        do = "Submit from a login node of the cluster, or write the script alone with --no-submit"
        raise ConfigError("no sbatch on this machine", where="--slurm", do=do) from None
    except (FailedJobError, FailedSubmissionError) as error:
        reason = (str(error).strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(
            f"Slurm refused the job ({reason[:200]})", where="--slurm", do="Change --slurm-option"
        ) from None
    return Job(folder / f"{number}_submission.sh", folder, number)


def before(out: Path, folder: Path, asked: SlurmSettings) -> list[str]:
    """Lines of the script before the tasks start: where they meet, and what of the run is there already."""
    return [
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "export MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))",
        f"export WORLD_SIZE={asked.nodes * asked.tasks} LOCAL_WORLD_SIZE={asked.tasks}",
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}",
        "# The first process that ends before its time says why, and leaves its exit code here; srun's own is the largest of all.",
        f"export VFM_EXIT_FILE={shlex.quote(str(folder))}/exit.$SLURM_JOB_ID",
        'rm -f "$VFM_EXIT_FILE"',
        f"saved() {{ cat {shlex.quote(str(out / 'checkpoints' / 'latest'))} 2>/dev/null; }}",
        "begun=$(saved)",
    ]


def task(command: Sequence[str]) -> str:
    """What srun starts: `command`, told which of the processes it is."""
    ranked = 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec "$@"'
    return shlex.join(["bash", "-c", ranked, "vfm", *command])


def afterwards(asked: SlurmSettings) -> list[str]:
    """Lines of the script after the tasks have ended: back into the queue where time was up and something was saved."""
    limit = "" if asked.time is None else f" (now {asked.time})"
    return [
        "code=$?",
        '[ -s "$VFM_EXIT_FILE" ] && code=$(cat "$VFM_EXIT_FILE")',
        'rm -f "$VFM_EXIT_FILE"',
        f'if [ "$code" = {REQUEUE} ] && [ "$(saved)" != "$begun" ]; then',
        '  echo "vfm: time is up; the job goes back into the queue" >&2',
        '  scontrol requeue "$SLURM_JOB_ID" || exit "$code"',
        f'elif [ "$code" = {REQUEUE} ]; then',
        f'  echo "vfm: time was up before a step was saved; not requeued. Ask for more: --slurm-option time=...{limit}" >&2',
        "fi",
        'exit "$code"',
    ]
