"""The RayJob manifest: only fields that the operator knows, and pods that find their files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from prunetune.cluster.kuberay import JOB_FOLDER, RayJobPods, rayjob_manifest
from prunetune.cluster.shipping import ShippedPath
from prunetune.errors import ClusterError

# Fields that manifests may have, from the reference of KubeRay's ray.io/v1 (1.5 and later) and, for
# pods, of Kubernetes' core/v1; a type stands for a value. Those with an exclamation mark must be
# there.
_QUANTITIES = {"cpu": str, "memory": str, "nvidia.com/gpu": str}
_POD = {
    "spec!": {
        "containers!": [
            {
                "name!": str,
                "image": str,
                "resources": {"requests": _QUANTITIES, "limits": _QUANTITIES},
                "volumeMounts": [{"name!": str, "mountPath!": str, "readOnly": bool}],
            }
        ],
        "volumes": [
            {
                "name!": str,
                "configMap": {"name": str, "items": [{"key!": str, "path!": str}]},
                "persistentVolumeClaim": {"claimName!": str, "readOnly": bool},
            }
        ],
    }
}
_RAY_JOB = {
    "apiVersion!": str,
    "kind!": str,
    "metadata!": {"name!": str, "namespace": str, "labels": dict},
    "spec!": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "entrypoint": str,
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "submissionMode": str,
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": str, "secretName": str},
            "enableInTreeAutoscaling": bool,
            "headGroupSpec!": {"rayStartParams": dict, "serviceType": str, "template!": _POD},
            "workerGroupSpecs": [
                {
                    "groupName!": str,
                    "replicas": int,
                    "minReplicas!": int,
                    "maxReplicas!": int,
                    "rayStartParams": dict,
                    "template!": _POD,
                }
            ],
        },
    },
}


def _check(value: Any, schema: Any, where: str = "") -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        fields = {name.rstrip("!"): inner for name, inner in schema.items()}
        assert set(value) <= set(fields), f"{where}: {set(value) - set(fields)}"
        required = {name.rstrip("!") for name in schema if name.endswith("!")}
        assert required <= set(value), f"{where}: {required - set(value)}"
        for name, inner in value.items():
            _check(inner, fields[name], f"{where}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        for inner in value:
            _check(inner, schema[0], f"{where}[]")
    else:
        assert type(value) is schema, where


def _manifest(
    paths: list[ShippedPath], pods: RayJobPods, storage: str | None = "s3://bucket/runs"
) -> tuple[dict[str, Any], dict[str, Any]]:
    text = rayjob_manifest(
        "My_Run-1f2e3d4c", "prunetune search x --resume", storage, pods, paths, {"spec.yaml": "é"}
    )
    config, job = yaml.safe_load_all(text)
    return config, job


def test_the_manifest_has_only_what_the_operator_knows() -> None:
    pods = RayJobPods("registry/prunetune:1", workers=3, gpus=1, claim="disk:/shared")
    config, job = _manifest([], pods, storage="/shared/runs")
    _check(job, _RAY_JOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
    assert job["metadata"]["name"] == "my-run-1f2e3d4c"
    assert len(job["metadata"]["name"]) <= 47, "KubeRay refuses longer ones"
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 3
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    (worker,) = group["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert all(type(value) is str for value in cluster["headGroupSpec"]["rayStartParams"].values())


def test_pods_find_the_files_where_the_spec_says(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("code")
    (tmp_path / "small.pt").write_bytes(b"\xff\xfe\x00")
    paths = [
        ShippedPath(name, tmp_path / name, f"files/deep er/{name}")
        for name in ("own.py", "small.pt")
    ]
    config, job = _manifest(paths, RayJobPods("image"))
    contents = {key: text.encode() for key, text in config["data"].items()}
    contents |= {key: base64.b64decode(text) for key, text in config["binaryData"].items()}
    cluster = job["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    for template in templates:
        (volume,) = template["spec"]["volumes"]
        assert volume["configMap"]["name"] == config["metadata"]["name"]
        items = volume["configMap"]["items"]
        files = {item["path"]: contents[item["key"]] for item in items}
        assert files == {
            "files/deep er/own.py": b"code",
            "files/deep er/small.pt": b"\xff\xfe\x00",
            "spec.yaml": "é".encode(),
        }
        (container,) = template["spec"]["containers"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": JOB_FOLDER}]


@pytest.mark.parametrize(
    ("storage", "claim", "message"),
    [
        (None, None, "loses its folder with its pods"),
        ("/shared/runs", None, "not on a volume"),
        ("/shared/runs", "disk:/data", "not on a volume"),
        ("/shared/runs", "disk", "is not NAME:/PATH"),
    ],
)
def test_a_run_that_would_be_lost_is_refused(
    storage: str | None, claim: str | None, message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        _manifest([], RayJobPods("image", claim=claim), storage)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(bytes(1024**2))
    with pytest.raises(ClusterError, match=r"Kubernetes takes 1 MiB.*weights\.pt"):
        _manifest(
            [ShippedPath("weights.pt", tmp_path / "weights.pt", "files/weights.pt")],
            RayJobPods("image"),
        )
