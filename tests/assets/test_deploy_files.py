"""The files of deploy/ are what Compose, Kubernetes and Dagster take; that they work is seen in tests/stack."""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from core.paths import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = "1.33"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "proccorpus.yaml").read_text()))
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())


def test_compose_file():
    schema = ("--builtin-schema", "vendor.compose-spec")
    checked = subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", *schema, DEPLOY / "compose.yaml"],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_manifest(manifest: dict):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert manifest["metadata"].get("namespace", "proccorpus") == "proccorpus"


@pytest.mark.parametrize("file", ["dagster.yaml", "kubernetes/dagster.yaml"])
def test_dagster_takes_its_configuration(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "dagster.yaml").write_text((DEPLOY / file).read_text())
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["storage"]["postgres"]["postgres_url"] == {"env": "DAGSTER_POSTGRES_URL"}
    assert config["telemetry"]["enabled"] is False


def _pods() -> list[tuple[str, dict]]:
    return [
        (m["metadata"]["name"], m["spec"]["template"]["spec"]) for m in MANIFESTS if "template" in m.get("spec", {})
    ]


def _literals() -> dict[str, str]:
    (generated,) = [g for g in KUSTOMIZATION["configMapGenerator"] if g["name"] == "proccorpus"]
    return dict(literal.split("=", 1) for literal in generated["literals"])


def test_pods_get_what_they_name():
    claims = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "PersistentVolumeClaim"}
    maps = {g["name"] for g in KUSTOMIZATION["configMapGenerator"]}
    accounts = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "ServiceAccount"}
    for name, spec in _pods():
        volumes = {v["name"] for v in spec["volumes"]}
        assert {
            v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v
        } <= claims
        assert {v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v} <= maps
        assert spec.get("serviceAccountName") in {None, *accounts}, name
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} <= volumes
            assert {s["configMapRef"]["name"] for s in container["envFrom"] if "configMapRef" in s} <= maps


def test_runs_get_the_image_and_the_settings_of_the_code_location():
    (image,) = KUSTOMIZATION["images"]
    assert _literals()["DAGSTER_CURRENT_IMAGE"] == f"{image['newName']}:{image['newTag']}"
    assert {c["image"] for _, spec in _pods() for c in spec["containers"]} == {f"{image['name']}:latest"}
    launcher = yaml.safe_load((DEPLOY / "kubernetes" / "dagster.yaml").read_text())["run_launcher"]["config"]
    assert launcher["env_config_maps"] == launcher["env_secrets"] == ["proccorpus"]
    assert launcher["dagster_home"] == _literals()["DAGSTER_HOME"]
    assert {m["name"]: m["mountPath"] for m in launcher["volume_mounts"]} == {"corpus": "/corpus", "tmp": "/tmp"}


def test_compose_passes_what_the_files_read():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    given = set(compose["services"]["code"]["environment"])
    read = {"DAGSTER_POSTGRES_URL", "DAGSTER_FILES", "PROCCORPUS_CODE_HOST", "PROCCORPUS_WORKSPACE", "PGPASSWORD"}
    assert read <= given
    said = {
        line.split("=")[0].lstrip("# ") for line in (DEPLOY / "env.example").read_text().splitlines() if "=" in line
    }
    text = (DEPLOY / "compose.yaml").read_text()
    assert {name for name in said if f"${{{name}" in text} == said
    published = [p for s in compose["services"].values() for p in s.get("ports", [])]
    assert published == compose["services"]["proxy"]["ports"] == ["127.0.0.1:3000:3000"]


def test_the_proxy_bounds_what_our_servers_do_not():
    text = (DEPLOY / "nginx.conf").read_text()
    for directive in ("limit_conn ", "limit_req ", "client_header_timeout ", "client_body_timeout ", "send_timeout "):
        assert directive in text
    assert "proxy_set_header Host $http_host;" in text  # which the guard compares with the Origin


def test_passwords_stay_out_of_the_image_and_of_git():
    assert {"**/.env", "**/.env.*"} <= set((ROOT / ".dockerignore").read_text().splitlines())
    assert {".env", ".env.*"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_the_ui_is_behind_its_guard():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    (container,) = dict(_pods())["webserver"]["containers"]
    for service in (compose["webserver"], container):
        assert service["command"][:3] == ["python", "-m", "assets.webserver"]
    assert "UI_TOKEN:?" in compose["webserver"]["environment"]["PROCCORPUS_UI_TOKEN"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "proccorpus-ui"
    # Those that read videos of others do not hold it
    assert "PROCCORPUS_UI_TOKEN" not in compose["code"]["environment"]


LOCKED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_containers_can_write_nothing_but_the_corpus_and_gain_no_right():
    for _, spec in _pods():
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == LOCKED
    launcher = yaml.safe_load((DEPLOY / "kubernetes" / "dagster.yaml").read_text())["run_launcher"]["config"]
    assert LOCKED.items() <= launcher["security_context"].items()
    assert launcher["security_context"]["runAsNonRoot"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in ("create", "code", "webserver", "daemon"):
        assert compose[name]["read_only"]
        assert compose[name]["cap_drop"] == ["ALL"]
        assert compose[name]["security_opt"] == ["no-new-privileges:true"]


def test_only_webserver_and_daemon_reach_the_code_location():
    policies = {m["metadata"]["name"]: m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (rule,) = policies["code"]["ingress"]
    (source,) = rule["from"]
    assert source["podSelector"]["matchExpressions"][0]["values"] == ["webserver", "daemon"]
    assert [p["port"] for p in rule["ports"]] == [4000]
    assert {p["podSelector"]["matchLabels"]["app"] for n, p in policies.items() if n != "nobody"} <= {
        name for name, _ in _pods()
    }
