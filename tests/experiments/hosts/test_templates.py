"""Cluster files against the schemas of those who read them."""

import json
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from useg.errors import InputError
from useg.experiments.hosts.listed import read_list
from useg.experiments.hosts.templates import KINDS, template, write_template

CLOUDS = ("aws", "gcp", "azure")


def flat(text: Any) -> str:
    return json.dumps(text)


@pytest.mark.parametrize("kind", CLOUDS)
def test_a_cloud_file_is_what_ray_reads(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("ray")
    cluster = yaml.safe_load(template(kind))
    schema = json.loads((files("ray.autoscaler") / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    assert cluster["provider"]["type"] == kind
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in cluster[name][1]
        assert "0.0.0.0" not in flat(cluster[name])
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][1]
    assert "$RAY_HEAD_IP" in cluster["worker_start_ray_commands"][1]
    groups = cluster["available_node_types"]
    assert groups.pop(cluster["head_node_type"])["resources"] == {"CPU": 0}
    by_priority = sorted(groups, key=lambda name: -groups[name]["priority"])
    assert by_priority == ["c-own", "b-spot", "a-on-demand"]
    assert [flat(groups[name]).lower().count("spot") + flat(groups[name]).count("preemptible")
            for name in by_priority] == [0, 1, 0]  # fmt: skip


@pytest.mark.parametrize("kind", CLOUDS)
def test_ray_takes_the_groups_in_the_order_of_preference(kind: str) -> None:
    pytest.importorskip("ray")
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

    groups = yaml.safe_load(template(kind))["available_node_types"]
    for each in groups.values():
        each["resources"] = each["resources"] or {"CPU": 8}  # on AWS, Ray knows it by the kind of the machine
    groups["c-own"]["max_workers"] = 1

    available = SimpleNamespace(node_availabilities={})  # no kind of machine has been refused lately

    def scored(resources: Any, demands: Any, name: str) -> Any:
        return _default_utilization_scorer(resources, demands, name, node_availability_summary=available)

    wanted = [{"CPU": 8}] * 10
    chosen, left = get_nodes_for(groups, {}, "head", 20, wanted, scored)
    assert (dict(chosen), left) == ({"c-own": 1, "b-spot": 8, "a-on-demand": 1}, [])


# Fields of ray.io/v1 and their types: KubeRay's API reference, docs/reference/api.md of ray-project/kuberay (sections
# RayCluster, RayClusterSpec, AutoscalerOptions, HeadGroupSpec, WorkerGroupSpec); authOptions, of 1.5.1 and newer:
# https://ray-project.github.io/kuberay/reference/api/ (AuthOptions).
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "cluster": {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict},
    "spec": {
        "suspend": bool, "managedBy": str, "autoscalerOptions": dict, "headServiceAnnotations": dict,
        "enableInTreeAutoscaling": bool, "gcsFaultToleranceOptions": dict, "headGroupSpec": dict, "rayVersion": str,
        "workerGroupSpecs": list, "authOptions": dict,
    },
    "auth": {"mode": str},
    "autoscaler": {
        "resources": dict, "image": str, "imagePullPolicy": str, "securityContext": dict, "idleTimeoutSeconds": int,
        "upscalingMode": str, "version": str, "env": list, "envFrom": list, "volumeMounts": list,
    },
    "head": {"template": dict, "headService": dict, "enableIngress": bool, "rayStartParams": dict, "serviceType": str},
    "worker": {
        "suspend": bool, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int,
        "idleTimeoutSeconds": int, "rayStartParams": dict, "template": dict, "scaleStrategy": dict, "numOfHosts": int,
    },
    # Kubernetes API reference v1.28: PodSpec, Container, VolumeMount, Volume, EmptyDirVolumeSource
    "pod": {"containers": list, "volumes": list, "nodeSelector": dict},
    "container": {"name": str, "image": str, "env": list, "ports": list, "resources": dict, "volumeMounts": list},
}  # fmt: skip


def check(kind: str, given: dict[str, Any]) -> None:
    for name, value in given.items():
        assert name in FIELDS[kind], f"{kind} has no {name}"
        assert isinstance(value, FIELDS[kind][name]), name


def test_the_kubernetes_file_has_only_fields_that_kuberay_has() -> None:
    cluster = yaml.safe_load(template("kubernetes"))
    check("cluster", cluster)
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    check("spec", spec)
    check("auth", spec["authOptions"])
    check("autoscaler", spec["autoscalerOptions"])
    assert spec["authOptions"]["mode"] in ("disabled", "token")
    assert spec["autoscalerOptions"]["version"] in ("v1", "v2")
    assert spec["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")
    check("head", spec["headGroupSpec"])
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    workers = spec["workerGroupSpecs"]
    assert [each["groupName"] for each in workers] == ["own", "spot", "on-demand"]
    for group in (spec["headGroupSpec"], *workers):
        pod = group["template"]["spec"]
        check("pod", pod)
        volumes = {each["name"] for each in pod.get("volumes", ())}
        for container in pod["containers"]:
            check("container", container)
            assert {each["name"] for each in container.get("volumeMounts", ())} == volumes
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for group in workers:
        check("worker", group)
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_list_is_read_as_it_is_written_and_no_file_is_written_twice(tmp_path: Path) -> None:
    path = write_template("ssh", tmp_path / "cluster.toml")
    listed = read_list(path)
    assert listed.addresses == ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    with pytest.raises(InputError, match="is there already"):
        write_template("ssh", path)
    with pytest.raises(InputError, match=r"wanted a name that ends with \.yaml"):
        write_template("aws", path)
    with pytest.raises(InputError, match=r"did you mean 'azure'.*ssh, aws, gcp, azure, kubernetes"):
        template("azur")
    assert all("$useg" not in template(kind) for kind in KINDS)
