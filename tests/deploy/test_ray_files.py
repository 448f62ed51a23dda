"""What is in ``deploy/ray`` fits Serve's schema, KubeRay's and the program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from echo.cluster.edge import IMPORT_PATH
from echo.cluster.server import PROXY_HOOK
from echo.config import EchoConfig, compose

ROOT = Path(__file__).parents[2]
RAY = ROOT / "deploy" / "ray"
# Of ray.io/v1: RayServiceSpec, RayClusterSpec, HeadGroupSpec and WorkerGroupSpec.
SERVICE = {
    "serveConfigV2",
    "rayClusterConfig",
    "serveService",
    "upgradeStrategy",
    "rayClusterDeletionDelaySeconds",
    "excludeHeadPodFromServeSvc",
}
CLUSTER = {
    "rayVersion",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "authOptions",
    "headGroupSpec",
    "workerGroupSpecs",
    "gcsFaultToleranceOptions",
}
HEAD = {"rayStartParams", "template", "serviceType", "enableIngress"}
WORKERS = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "idleTimeoutSeconds",
    "rayStartParams",
    "template",
}


def service() -> dict[str, Any]:
    return yaml.safe_load((RAY / "rayservice.yaml").read_text())


def serve_configs() -> list[dict[str, Any]]:
    alone = yaml.safe_load((RAY / "serve_config.yaml").read_text())
    return [alone, yaml.safe_load(service()["spec"]["serveConfigV2"])]


def settings(serve_config: dict[str, Any]) -> EchoConfig:
    [application] = serve_config["applications"]
    return compose(["cluster=ray", *application["args"]["overrides"]])


@pytest.mark.parametrize("config", serve_configs(), ids=["alone", "kuberay"])
def test_serve_takes_the_config_file(config):
    schema = pytest.importorskip("ray.serve.schema", reason="needs the extra cluster")
    read = schema.ServeDeploySchema.model_validate(config)
    assert not read.model_extra, "Serve would not know these"
    assert read.controller_options.runtime_env == {"env_vars": PROXY_HOOK}
    [application] = read.applications
    module, _, name = application.import_path.partition(":")
    assert hasattr(pytest.importorskip(module), name)


@pytest.mark.parametrize("config", serve_configs(), ids=["alone", "kuberay"])
def test_the_settings_exist_and_fit_the_rest_of_the_file(config):
    there = settings(config)
    assert there.server.host == config["http_options"]["host"]
    assert there.cluster.enabled
    assert there.cluster.max_replicas == 4


def test_without_kubernetes_only_this_machine_is_let_in():
    assert serve_configs()[0]["http_options"]["host"] == "127.0.0.1"


def test_the_manifest_has_fields_that_kuberay_knows():
    manifest = service()
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    spec = manifest["spec"]
    assert set(spec) <= SERVICE
    assert spec["upgradeStrategy"]["type"] in ("NewCluster", "None")
    cluster = spec["rayClusterConfig"]
    assert set(cluster) <= CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKERS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_pod_has_room_for_a_replica_and_there_may_be_a_pod_for_each():
    spec = service()["spec"]
    config = settings(serve_configs()[1])
    [group] = spec["rayClusterConfig"]["workerGroupSpecs"]
    [worker] = group["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    assert float(limits["nvidia.com/gpu"]) >= config.cluster.gpus_per_replica
    assert float(limits["cpu"]) >= config.cluster.cpus_per_replica
    assert group["maxReplicas"] == config.cluster.max_replicas


def test_streams_have_as_long_to_end_as_the_settings_say():
    spec = service()["spec"]
    drain = settings(serve_configs()[1]).cluster.drain_seconds
    [group] = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert spec["rayClusterDeletionDelaySeconds"] >= drain
    pod = group["template"]["spec"]
    [worker] = pod["containers"]
    rays = {each["name"]: each["value"] for each in worker["env"]}
    assert float(rays["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) >= drain
    assert pod["terminationGracePeriodSeconds"] > drain


def test_ray_knows_the_variable_for_draining():
    constants = pytest.importorskip("ray._private.ray_constants", reason="needs the extra cluster")
    assert hasattr(constants, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")


def test_the_dashboard_finds_what_ray_tells_prometheus_under_its_own_names():
    [block] = re.findall(
        r"^scrape_configs:\n(?: .*\n)+", (ROOT / "docs/cluster.md").read_text(), re.M
    )
    [job] = yaml.safe_load(block)["scrape_configs"]
    [rule] = job["metric_relabel_configs"]
    dashboard = (ROOT / "deploy/grafana/dashboard.json").read_text()
    asked = set(re.findall(r"\b(?:echo|process)_\w+", " ".join(expressions(dashboard))))
    assert len(asked) > 20
    for name in asked:
        found = re.fullmatch(rule["regex"], f"ray_{name}")
        assert found is not None, name
        assert found[1] == name
    assert set(re.findall(r'job=\\"(\w+)\\"', dashboard)) == {job["job_name"]}


def expressions(dashboard: str) -> list[str]:
    targets = [
        each for panel in json.loads(dashboard)["panels"] for each in panel.get("targets", [])
    ]
    return [target["expr"] for target in targets]


def test_pods_offer_the_port_that_serve_listens_on():
    port = serve_configs()[1]["http_options"]["port"]
    cluster = service()["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        [container] = group["template"]["spec"]["containers"]
        assert {"containerPort": port, "name": "serve"} in container["ports"]


def test_the_image_has_the_ray_that_the_manifest_says_and_copies_what_is_there():
    dockerfile = (RAY / "Dockerfile").read_text()
    [version] = re.findall(r"^ARG RAY=(\S+)$", dockerfile, re.M)
    assert service()["spec"]["rayClusterConfig"]["rayVersion"] == version
    assert f"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH={IMPORT_PATH}" in dockerfile
    copied = re.findall(r"^COPY --chown=ray:users (.+) \S+$", dockerfile, re.M)
    sources = {source for line in copied for source in line.split()}
    for source in sources:
        assert (ROOT / source).exists(), source
    [extras] = re.findall(r'"\.\[([a-z,]+)\]"', dockerfile)
    assert {"cluster", "otel", "quantize"} <= set(extras.split(",")), "a flag would end the start"
    ignore = (RAY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == sources
