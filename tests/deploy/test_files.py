"""The files in deploy/: what reads them accepts them, and what they start loads."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import (
    DagsterK8sJobConfig,
    UserDefinedDagsterK8sConfig,
    construct_dagster_k8s_job,
)
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes.client import models

from popcorn_assets.runs.executors import (
    EXECUTOR_VARIABLE,
    GPU_STEPS,
    KUBERNETES_VARIABLE,
    WITHOUT_FILE,
    executor,
)
from popcorn_ml.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
BIN = Path(sys.executable).parent


def documents(path: Path) -> list[dict]:
    return [d for d in yaml.safe_load_all(path.read_text("utf-8")) if d is not None]


# Kubernetes ---------------------------------------------------------------------------------------


def manifests() -> list[dict]:
    kustomization = documents(KUBERNETES / "kustomization.yaml")[0]
    return [d for name in kustomization["resources"] for d in documents(KUBERNETES / name)]


@pytest.mark.parametrize(
    "manifest", manifests(), ids=lambda m: f"{m['kind']}-{m['metadata']['name']}"
)
def test_a_manifest_is_what_kubernetes_knows(manifest):
    group, _, version = manifest["apiVersion"].rpartition("/")
    assert group in ("", "apps", "rbac.authorization.k8s.io", "networking.k8s.io")
    kind = getattr(models, f"{version.capitalize()}{manifest['kind']}")
    k8s_model_from_dict(kind, k8s_snake_case_dict(kind, manifest))  # raises on any other key


def test_what_the_manifests_name_is_there():
    kustomization = documents(KUBERNETES / "kustomization.yaml")[0]
    maps = {g["name"] for g in kustomization["configMapGenerator"]}
    files = [f for g in kustomization["configMapGenerator"] for f in g.get("files", g.get("envs"))]
    assert all((KUBERNETES / name).is_file() for name in files)
    claims = {m["metadata"]["name"] for m in manifests() if m["kind"] == "PersistentVolumeClaim"}
    accounts = {m["metadata"]["name"] for m in manifests() if m["kind"] == "ServiceAccount"}
    for deployment in (m for m in manifests() if m["kind"] == "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] in accounts
        for volume in pod["volumes"]:
            assert volume.get("configMap", {"name": next(iter(maps))})["name"] in maps
            assert (
                volume.get("persistentVolumeClaim", {"claimName": next(iter(claims))})["claimName"]
                in claims
            )
    services = {m["metadata"]["name"]: m for m in manifests() if m["kind"] == "Service"}
    server = documents(KUBERNETES / "workspace.yaml")[0]["load_from"][0]["grpc_server"]
    assert services[server["host"]]["spec"]["ports"][0]["port"] == server["port"]


def test_kustomize_makes_one_list_of_them(tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine")
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, timeout=60
    )
    if "unknown command" in done.stderr:
        pytest.skip("this kubectl has no kustomize")
    assert done.returncode == 0, done.stderr
    made = [d for d in yaml.safe_load_all(done.stdout) if d]
    assert len(made) == len(manifests()) + 4
    instance = next(d for d in made if d["metadata"]["name"] == "popcorn-instance")
    assert instance["kind"] == "ConfigMap"
    assert "K8sRunLauncher" in instance["data"]["dagster.yaml"]


def job_of(step_config: dict) -> dict:
    """The Kubernetes job that dagster-k8s makes of a step's configuration."""
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="popcorn", dagster_home="/srv/popcorn"),
        args=["dagster"],
        job_name="step",
        user_defined_k8s_config=UserDefinedDagsterK8sConfig.from_dict(step_config),
    )
    return job.to_dict()["spec"]["template"]["spec"]


def test_each_gpu_step_gets_a_pod_on_a_gpu_node_with_one_gpu():
    steps = documents(KUBERNETES / "steps.yaml")[0]
    assert set(steps["per_step_k8s_config"]) == set(GPU_STEPS)
    for step in GPU_STEPS:
        pod = job_of(steps["per_step_k8s_config"][step])
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod["node_selector"] == {"nvidia.com/gpu.present": "true"}
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
        plain = job_of(WITHOUT_FILE["per_step_k8s_config"][step])
        assert plain["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    other = job_of(steps["step_k8s_config"])
    assert "nvidia.com/gpu" not in other["containers"][0]["resources"]["limits"]


def test_definitions_load_with_the_executor_of_kubernetes():
    code = """
import fnmatch
import json
from popcorn_assets.definitions import defs
jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
graph = defs.resolve_asset_graph()
nodes = {op.name: op.pool for job in jobs for op in job.all_node_defs if hasattr(op, "pool")}
print(json.dumps({
    "executors": {job.name: job.executor_def.name for job in jobs},
    "gpu": sorted(name for name, pool in nodes.items() if pool == "gpu"),
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            EXECUTOR_VARIABLE: "kubernetes",
            KUBERNETES_VARIABLE: str(KUBERNETES / "steps.yaml"),
        },
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["executors"]["train"] == said["executors"]["country_year"] == "kubernetes"
    assert said["gpu"] == sorted(GPU_STEPS)


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("slurm", "", "processes or kubernetes"),
    ("kubernetes", "step_k8s_config: 7", "cannot be used"),
    ("kubernetes", "max_concurent: 7", "max_concurent"),
    ("kubernetes", "- a", "not a mapping"),
    ("kubernetes", "a: [", "cannot be read"),
])  # fmt: skip
def test_a_wrong_executor_is_refused_when_definitions_load(
    name, text, expected, tmp_path, monkeypatch
):
    file = tmp_path / "steps.yaml"
    file.write_text(text)
    monkeypatch.setenv(EXECUTOR_VARIABLE, name)
    monkeypatch.setenv(KUBERNETES_VARIABLE, str(file))
    with pytest.raises(ConfigError, match=expected):
        executor()


# Instances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [REPOSITORY, KUBERNETES], ids=["machine", "kubernetes"])
def test_dagster_yaml_is_what_dagster_knows(folder):
    found, _ = dagster_instance_config(str(folder))  # raises on any other key
    storage = found["storage"]["custom"]
    assert (storage["module"], storage["class"]) == ("popcorn_assets.runs.instance", "Storage")


def test_the_run_launcher_of_kubernetes_is_configured_rightly(monkeypatch):
    monkeypatch.setenv("POPCORN_IMAGE", "popcorn:latest")
    found, _ = dagster_instance_config(str(KUBERNETES))
    launcher = found["run_launcher"]
    assert launcher["class"] == K8sRunLauncher.__name__
    checked = process_config(
        resolve_to_config_type(K8sRunLauncher.config_type()), launcher["config"]
    )
    assert checked.success, [error.message for error in checked.errors]
    mounted = {mount["name"]: mount["mountPath"] for mount in launcher["config"]["volume_mounts"]}
    assert found["compute_logs"]["config"]["base_dir"].startswith(mounted["data"])


# systemd ------------------------------------------------------------------------------------------


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    for unit in UNITS:
        text = unit.read_text("utf-8").replace("/opt/popcorn/.venv/bin", str(BIN))
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / u.name for u in UNITS)],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    about_ours = [line for line in done.stderr.splitlines() if "popcorn" in line]
    assert about_ours == []


def test_what_the_units_start_listens_on_loopback_only():
    assert len(UNITS) == 3
    for unit in UNITS:
        (command,) = [
            line.removeprefix("ExecStart=")
            for line in unit.read_text("utf-8").splitlines()
            if line.startswith("ExecStart=")
        ]
        words = shlex.split(command)
        assert Path(words[0]).parent == Path("/opt/popcorn/.venv/bin")
        if "daemon" not in unit.name:
            assert words[words.index("-h") + 1] == "127.0.0.1"


def test_the_code_server_of_the_unit_serves_the_definitions(tmp_path):
    """The unit's own command, on a free port, asked by Dagster's own check."""
    text = (DEPLOY / "systemd" / "popcorn-code.service").read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line.removeprefix("ExecStart="))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words[0] = str(BIN / Path(words[0]).name)
    words[words.index("-p") + 1] = port
    shutil.copyfile(REPOSITORY / "dagster.yaml", tmp_path / "dagster.yaml")
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "POPCORN_DATA": str(tmp_path)}
    server = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        from dagster._grpc.client import DagsterGrpcClient

        client = DagsterGrpcClient(host="127.0.0.1", port=int(port))
        deadline = time.monotonic() + 90
        while client.health_check_query() != "SERVING":
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert "popcorn_assets.definitions" in client.list_repositories()
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)


# Compose ------------------------------------------------------------------------------------------


def test_docker_compose_understands_the_file():
    if shutil.which("docker") is None:
        pytest.skip("no docker on this machine")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker has no compose plugin here")
    done = subprocess.run(
        ["docker", "compose", "-f", "compose.yaml", "-f", "gpu.yaml", "config", "--quiet"],
        cwd=DEPLOY / "compose", capture_output=True, text=True, timeout=60,
        env={**os.environ, "POSTGRES_PASSWORD": "x"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_compose_publishes_the_web_server_on_loopback_and_nothing_else():
    (compose,) = documents(DEPLOY / "compose" / "compose.yaml")
    services = compose["services"]
    published = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert published == {"webserver": ["127.0.0.1:3000:3000"]}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", ()):
            name = volume.partition(":")[0]
            assert name.startswith("./") or name in compose["volumes"]
    (workspace,) = documents(DEPLOY / "compose" / "workspace.yaml")
    server = workspace["load_from"][0]["grpc_server"]
    assert services[server["host"]]["hostname"] == server["host"]
    command = shlex.split(services[server["host"]]["command"][-1])
    assert command[command.index("-p") + 1] == str(server["port"])
    assert command[command.index("--location-name") + 1] == server["location_name"]
    (gpu,) = documents(DEPLOY / "compose" / "gpu.yaml")
    assert set(gpu["services"]) <= set(services)


def test_the_image_is_built_from_files_that_are_there():
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert sources
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert f"!{source}" in allowed
    assert allowed[0] == "*", "what is not named is left out: the environment, the store"
    assert not [line for line in allowed if line.startswith(("!.venv", "!data", "!*", "!."))]


def test_the_commit_reaches_the_image_from_compose():
    (compose,) = documents(DEPLOY / "compose" / "compose.yaml")
    assert "POPCORN_COMMIT" in compose["services"]["code"]["build"]["args"]
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    assert lines.index("ARG POPCORN_COMMIT=") < lines.index("ENV POPCORN_COMMIT=$POPCORN_COMMIT")


def test_the_recipe_for_systemd_copies_only_what_a_clone_has(tmp_path):
    """Neither the environment nor the store of the checkout; every file it names is there."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("this is no checkout to clone")
    text = (REPOSITORY / "docs" / "operate.md").read_text("utf-8")
    section = text.partition("## One machine with systemd")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    recipe = [shlex.split(line, comments=True) for line in lines]
    assert ["git", "clone", ".", "/opt/popcorn"] in recipe
    clone = tmp_path / "clone"
    command = ["git", "clone", "--quiet", "--no-checkout", "--shared", REPOSITORY, clone]
    subprocess.run(command, check=True)
    listed = ["git", "-C", clone, "ls-tree", "-r", "--name-only", "HEAD"]
    cloned = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    assert not [name for name in cloned if name.startswith((".venv/", "data/"))]
    copied = [words for words in recipe if words and words[0] == "cp"]
    copied += [words[2:] for words in recipe if words[:2] == ["install", "-m"]]
    assert len(copied) == 3
    for words in copied:
        for source in words[1:-1]:
            assert fnmatch.filter(cloned, source), source
