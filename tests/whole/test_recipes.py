"""docs/recipes: each file is well formed, uses fields that its scheduler has, and starts a command that exists.

Field names and types are those of sbatch(1), of the custom resource kubeflow.org/v1 PyTorchJob (training operator 1.9)
and of SkyPilot's task schema (0.14). Shell parts are not only parsed but run, with stand-ins for what a cluster brings
(scontrol, srun), and what they would start is read by torchrun's own parser and by the real command line.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
import yaml
from msgspec import Meta, Struct, field

from cllm.cli import build

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "recipes"
SLURM, KUBERNETES, SKY = RECIPES / "slurm.sbatch", RECIPES / "pytorchjob.yaml", RECIPES / "skypilot.yaml"

# sbatch's long options that make sense here, and what they take
SBATCH = {
    "job-name": r"\S+", "nodes": r"\d+(-\d+)?", "ntasks-per-node": r"\d+", "cpus-per-task": r"\d+",
    "gpus-per-node": r"(\w+:)?\d+", "mem": r"\d+[KMGT]?", "time": r"(\d+-)?\d+(:\d+){0,2}", "partition": r"\S+",
    "account": r"\S+", "signal": r"((R|B|RB):)?[A-Z0-9]+(@\d+)?", "requeue": None, "exclusive": None,
    "open-mode": r"append|truncate", "output": r"\S+", "error": r"\S+",
}  # fmt: skip


# ------------------------------------------------------------------------------------------- what would be started


def launched(argv: list[str]) -> tuple[Any, dict[str, Any]]:
    """(torchrun's own reading of its arguments, what our command line makes of the rest)."""
    from torch.distributed.run import get_args_parser

    said = get_args_parser().parse_args(argv)
    assert said.module and said.training_script == "cllm"
    command, bound, *_ = build(listing=False).parse_args(said.training_script_args, exit_on_error=False)
    assert command.__name__ == "train"
    return said, bound.arguments


def stand_in(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text("#!/usr/bin/env bash\n" + text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder of stand-ins. torchrun writes its arguments down; srun runs what it is given."""
    stand_in(tmp_path, "scontrol", f'echo "$*" >> {tmp_path}/scontrol.log\n[ "$1" = show ] && echo "$HOSTS"\nexit 0\n')
    stand_in(tmp_path, "srun", 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    write = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open(sys.argv[0] + '.json', 'w'))"
    stand_in(
        tmp_path, "torchrun", f'{sys.executable} - "$@" <<E\nimport sys; sys.argv[0] = "$0"\n{write}\nE\nexit $CODE\n'
    )
    return tmp_path


def play(cluster: Path, script: list[str], **variables: str) -> tuple[int, list[str], dict[str, str]]:
    """(exit code, torchrun's arguments, its environment) of a shell script among the stand-ins."""
    told = {"PATH": f"{cluster}:{os.environ['PATH']}", "HOME": str(cluster), "CODE": "0", **variables}
    done = subprocess.run(script, env=told, cwd=ROOT, capture_output=True, text=True, timeout=60)
    said = cluster / "torchrun.json"
    assert said.exists(), done.stderr
    argv, environment = json.loads(said.read_text())
    return done.returncode, argv, environment


# ------------------------------------------------------------------------------------------------------------ Slurm

JOB = {
    "SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[07-08]", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_PER_TASK": "16", "SLURM_SUBMIT_DIR": "/shared/me", "HOSTS": "node07\nnode08",
}  # fmt: skip


def test_slurm_directives_are_sbatch_options_and_stand_before_the_first_command() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    lines = SLURM.read_text().splitlines()
    assert lines[0].startswith("#!")
    first = next(i for i, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    found = {}
    for i, line in enumerate(lines):
        if re.match(r"\s*#\s*SBATCH", line):
            assert i < first, f"line {i + 1}: sbatch reads no directive behind the first command"
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            assert name in SBATCH, line
            form = SBATCH[name]
            assert not value if form is None else re.fullmatch(form, value), line
            found[name] = value
    assert found["ntasks-per-node"] == "1", "one torchrun a machine"
    assert "requeue" in found and found["signal"].startswith("TERM@"), (
        "without B: it goes to the step, not to the script"
    )


def test_slurm_starts_one_torchrun_a_machine_that_meet_at_the_first(cluster: Path) -> None:
    code, argv, environment = play(cluster, ["bash", str(SLURM)], **JOB, PROCESSES="4", DATA="books/")
    said, arguments = launched(argv)
    assert code == 0 and (said.nnodes, said.nproc_per_node, said.rdzv_backend) == ("2", "4", "c10d")
    host, port = said.rdzv_endpoint.split(":")
    assert host == "node07" and 1024 < int(port) < 65536 and said.rdzv_id == "123456"
    assert environment["OMP_NUM_THREADS"] == "4", "the cores of a machine, divided"
    assert arguments["data"] == ("books/",) and arguments["resume"] is True
    assert str(arguments["out"]).startswith("/shared/me") and (ROOT / arguments["run"]).is_file()
    assert "requeue" not in (cluster / "scontrol.log").read_text()


def test_slurm_goes_back_into_the_queue_until_it_has_done_so_often_enough(cluster: Path) -> None:
    code, *_ = play(cluster, ["bash", str(SLURM)], **JOB, CODE="1", SLURM_RESTART_COUNT="3")
    assert code == 0 and "requeue 123456" in (cluster / "scontrol.log").read_text()
    (cluster / "scontrol.log").unlink()
    code, *_ = play(cluster, ["bash", str(SLURM)], **JOB, CODE="1", SLURM_RESTART_COUNT="3", RESTARTS="3")
    assert code == 1 and "requeue" not in (cluster / "scontrol.log").read_text()


@pytest.mark.prove
def test_slurm_script_trains_with_the_real_torchrun(cluster: Path) -> None:
    """Two processes of one machine, then three that find nothing left to do; scontrol and srun are stand-ins."""
    (cluster / "torchrun").unlink()
    text, run, out = cluster / "text.txt", cluster / "run.toml", cluster / "out"
    text.write_text("So shaken as we are, so wan with care. " * 400)
    stand_in(cluster, "torchrun", f'exec {sys.executable} -m torch.distributed.run --local-addr=127.0.0.1 "$@"\n')
    job = JOB | {"SLURM_JOB_NUM_NODES": "1", "HOSTS": "127.0.0.1", "DATA": str(text), "RUN": str(run), "OUT": str(out)}
    told = {**os.environ, **job, "PATH": f"{cluster}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "3"}
    for processes, steps in ((2, 4), (3, 4)):
        run.write_text(f'preset = "nano"\n[train]\nsteps = {steps}\nbatch = 6\nsequence = 16\n')
        done = subprocess.run(
            ["bash", str(SLURM)], env=told | {"PROCESSES": str(processes)}, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "requeue" not in (cluster / "scontrol.log").read_text(), done.stderr
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------------- Kubernetes


class Strict(Struct, forbid_unknown_fields=True, rename="camel"):
    """Camel case, as in the API; an unknown field is an error, as with `kubectl --validate=strict`."""


class Metadata(Strict):
    name: Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)


class Named(Strict):
    name: str
    value: str = ""


class Mount(Strict):
    name: str
    mount_path: str
    read_only: bool = False


class Resources(Strict):
    requests: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)


class Container(Strict):
    name: str
    image: str
    command: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)
    env: list[Named] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)
    volume_mounts: list[Mount] = field(default_factory=list)


class Claim(Strict):
    claim_name: str
    read_only: bool = False


class Empty(Strict):
    medium: Literal["", "Memory"] = ""
    size_limit: str = ""


class Volume(Strict):
    name: str
    persistent_volume_claim: Claim | None = None
    empty_dir: Empty | None = None


class Pod(Strict):
    containers: list[Container]
    volumes: list[Volume] = field(default_factory=list)
    termination_grace_period_seconds: int = 30


class Template(Strict):
    spec: Pod


class Replicas(Strict):
    replicas: Annotated[int, Meta(ge=1)]
    template: Template
    restart_policy: Literal["Always", "OnFailure", "Never", "ExitCode"] = "Never"


class Elastic(Strict):
    rdzv_backend: Literal["c10d", "etcd", "etcd-v2"] = "c10d"
    rdzv_host: str = ""
    rdzv_port: int = 0
    rdzv_id: str = ""
    min_replicas: int = 1
    max_replicas: int = 1
    max_restarts: int = 0


class Policy(Strict):
    clean_pod_policy: Literal["Running", "All", "None"] = "None"
    backoff_limit: int = 0
    active_deadline_seconds: int = 0
    ttl_seconds_after_finished: int = 0


class Spec(Strict):
    pytorch_replica_specs: dict[Literal["Master", "Worker"], Replicas]
    elastic_policy: Elastic | None = None
    run_policy: Policy | None = None
    nproc_per_node: str = ""


class PyTorchJob(Strict):
    api_version: Literal["kubeflow.org/v1"]
    kind: Literal["PyTorchJob"]
    metadata: Metadata
    spec: Spec


def test_pytorchjob_has_the_fields_of_its_resource_and_starts_our_command(monkeypatch: pytest.MonkeyPatch) -> None:
    job = msgspec.convert(yaml.safe_load(KUBERNETES.read_text()), PyTorchJob, strict=True)
    elastic, workers = job.spec.elastic_policy, job.spec.pytorch_replica_specs["Worker"]
    assert elastic is not None and elastic.min_replicas <= workers.replicas <= elastic.max_replicas
    assert "Master" not in job.spec.pytorch_replica_specs, "an elastic job has workers alone"
    (container,) = workers.template.spec.containers
    assert container.name == "pytorch", "the operator sets the variables of the container of this name"
    volumes = {volume.name for volume in workers.template.spec.volumes}
    assert {mount.name for mount in container.volume_mounts} == volumes
    assert workers.template.spec.termination_grace_period_seconds >= 60 and workers.restart_policy == "OnFailure"
    # what the operator sets, torchrun takes as its flags
    monkeypatch.setenv("PET_NNODES", f"{elastic.min_replicas}:{elastic.max_replicas}")
    monkeypatch.setenv("PET_RDZV_BACKEND", elastic.rdzv_backend)
    monkeypatch.setenv("PET_RDZV_ENDPOINT", f"{job.metadata.name}-worker-0:23456")
    monkeypatch.setenv("PET_MAX_RESTARTS", str(elastic.max_restarts))
    assert container.command[0] == "torchrun"
    said, arguments = launched([*container.command[1:], *container.args])
    assert (said.nnodes, said.rdzv_endpoint, int(said.max_restarts)) == ("1:4", "cllm-worker-0:23456", 10)
    assert said.nproc_per_node == "1" and said.rdzv_id
    mounts = [Path(mount.mount_path) for mount in container.volume_mounts]
    assert any(mount in Path(arguments["out"]).parents for mount in mounts), "the run outlives its pods"
    assert arguments["resume"] is True, "a worker that starts again goes on"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "elasticPolicy", "minReplica"), 1),
        (("spec", "pytorchReplicaSpecs", "Worker", "replicas"), "4"),
        (("spec", "pytorchReplicaSpecs", "Workers"), {}),
        (("apiVersion",), "kubeflow.org/v2"),
    ],
)
def test_a_mistake_in_a_pytorchjob_is_found(path: tuple[str, ...], value: object) -> None:
    job = yaml.safe_load(KUBERNETES.read_text())
    place = job
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(job, PyTorchJob, strict=True)


# --------------------------------------------------------------------------------------------------------- SkyPilot


class SkyResources(Struct, forbid_unknown_fields=True):
    infra: str = ""
    accelerators: str = ""
    cpus: int | str = ""
    memory: int | str = ""
    instance_type: str = ""
    use_spot: bool = False
    disk_size: int | str = 256
    network_tier: Literal["standard", "best"] = "standard"
    image_id: str = ""


class SkyTask(Struct, forbid_unknown_fields=True):
    name: str
    run: str
    num_nodes: Annotated[int, Meta(ge=1)] = 1
    resources: SkyResources = field(default_factory=SkyResources)
    envs: dict[Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], str | None] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    file_mounts: dict[str, Any] = field(default_factory=dict)
    workdir: str = ""
    setup: str = ""


def test_skypilot_task_has_the_fields_of_its_schema_and_starts_our_command(cluster: Path) -> None:
    task = msgspec.convert(yaml.safe_load(SKY.read_text()), SkyTask, strict=True)
    for part in (task.setup, task.run):
        subprocess.run(["bash", "-n"], input=part, text=True, check=True)
    assert re.fullmatch(r"[A-Za-z0-9-]+:\d+", task.resources.accelerators)
    told = {name: value or "" for name, value in task.envs.items()}
    told |= {
        "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6", "SKYPILOT_NUM_NODES": str(task.num_nodes), "SKYPILOT_NODE_RANK": "0",
        "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_TASK_ID": "sky-2026-01-01-00-00-00-000000_cllm_1",
    }  # fmt: skip
    stand_in(cluster, "nproc", "echo 64\n")
    code, argv, environment = play(cluster, ["bash", "-c", task.run], **told)
    said, arguments = launched(argv)
    assert code == 0 and (said.nnodes, said.nproc_per_node) == ("2", "8")
    assert said.rdzv_endpoint.startswith("10.0.0.5:") and environment["OMP_NUM_THREADS"] == "8"
    assert any(Path(volume) in Path(arguments["out"]).parents for volume in task.volumes), "shared by the machines"
    assert arguments["resume"] is True and (ROOT / arguments["run"]).is_file()
    packages = re.search(r'pip install "\.\[([\w,]+)\]"', task.setup)
    assert packages is not None
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert all(re.search(rf"^{extra} = ", extras, re.M) for extra in packages[1].split(","))


def test_a_mistake_in_a_skypilot_task_is_found() -> None:
    task = yaml.safe_load(SKY.read_text())
    for wrong in (
        {"num_node": 2},
        {"num_nodes": "2"},
        {"envs": {"A-B": "c"}},
        {"resources": {"accelerator": "H100:8"}},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(task | wrong, SkyTask, strict=True)


# ---------------------------------------------------------------------------------------------------------- the page


def test_the_page_names_every_recipe_and_nothing_else() -> None:
    page = (RECIPES / "README.md").read_text()
    files = {file.name for file in RECIPES.iterdir()} - {"README.md"}
    assert set(re.findall(r"\]\(([\w.]+\.(?:sbatch|yaml))\)", page)) == files
