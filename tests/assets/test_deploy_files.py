"""The files of deploy/ are what Compose, Kubernetes and Dagster take; that they work is seen in tests/stack."""

import json
import re
import subprocess
import sys
from itertools import chain, product
from operator import itemgetter
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from core.paths import ROOT
from eval.server.sessions import Metrics

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "monitoring" / "alerts.yaml"
KUBERNETES = "1.33"
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
MANIFESTS = list(
    chain.from_iterable(
        yaml.safe_load_all((DEPLOY / file).read_text()) for file in KUSTOMIZATION["resources"]
    )
)
POLICIES = {m["metadata"]["name"]: m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"}
LAUNCHER = yaml.safe_load((DEPLOY / "kubernetes" / "dagster.yaml").read_text())["run_launcher"][
    "config"
]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_compose_file():
    schema = ("--builtin-schema", "vendor.compose-spec")
    checked = subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", *schema, DEPLOY / "compose.yaml"],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}"
)
def test_manifest(manifest):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert manifest["metadata"].get("namespace", "proccorpus") == "proccorpus"


@pytest.mark.parametrize("file", ["dagster.yaml", "kubernetes/dagster.yaml"])
def test_dagster_takes_its_configuration(file, tmp_path, monkeypatch):
    (tmp_path / "dagster.yaml").write_text((DEPLOY / file).read_text())
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["storage"]["postgres"]["postgres_url"] == {"env": "DAGSTER_POSTGRES_URL"}
    assert config["telemetry"]["enabled"] is False


def _pods() -> list[tuple[str, dict]]:
    specs = [(m["metadata"]["name"], m.get("spec", {})) for m in MANIFESTS]
    jobs = [(name, spec.get("jobTemplate", {}).get("spec", spec)) for name, spec in specs]
    return [(name, spec["template"]["spec"]) for name, spec in jobs if "template" in spec]


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
            v["persistentVolumeClaim"]["claimName"]
            for v in spec["volumes"]
            if "persistentVolumeClaim" in v
        } <= claims
        assert {v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v} <= maps
        assert spec.get("serviceAccountName") in {None, *accounts}, name
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} <= volumes
            assert {
                s["configMapRef"]["name"]
                for s in container.get("envFrom", [])
                if "configMapRef" in s
            } <= maps
    for generated in KUSTOMIZATION["configMapGenerator"]:
        for file in generated.get("files", []):
            assert (DEPLOY / file.rpartition("=")[2]).is_file()


def test_runs_get_the_image_and_the_settings_of_the_code_location():
    (image,) = KUSTOMIZATION["images"]
    assert _literals()["DAGSTER_CURRENT_IMAGE"] == f"{image['newName']}:{image['newTag']}"
    images = {}
    for name, spec in _pods():
        for container in spec["containers"]:
            images[name] = container["image"]
    assert images.pop("proxy") == COMPOSE["proxy"]["image"]
    assert set(images.values()) == {f"{image['name']}:latest"}
    assert LAUNCHER["env_config_maps"] == LAUNCHER["env_secrets"] == ["proccorpus"]
    assert LAUNCHER["dagster_home"] == _literals()["DAGSTER_HOME"]
    assert {m["name"]: m["mountPath"] for m in LAUNCHER["volume_mounts"]} == {
        "corpus": "/corpus",
        "tmp": "/tmp",
    }


def test_compose_passes_what_the_files_read():
    passed_names = set(COMPOSE["code"]["environment"])
    read = {
        "DAGSTER_POSTGRES_URL",
        "DAGSTER_FILES",
        "PROCCORPUS_CODE_HOST",
        "PROCCORPUS_WORKSPACE",
        "PGPASSWORD",
    }
    assert read <= passed_names
    named_variables = {
        line.split("=")[0].lstrip("# ")
        for line in (DEPLOY / "env.example").read_text().splitlines()
        if "=" in line
    }
    text = (DEPLOY / "compose.yaml").read_text()
    assert {name for name in named_variables if f"${{{name}" in text} == named_variables
    published = {name: s["ports"] for name, s in COMPOSE.items() if "ports" in s}
    assert published.keys() == {"proxy", "prometheus"}
    assert all(port.startswith("127.0.0.1:") for port in chain.from_iterable(published.values()))


def test_the_proxy_bounds_what_our_servers_do_not():
    text = (DEPLOY / "nginx.conf").read_text()
    for directive in (
        "limit_conn ",
        "limit_req ",
        "client_header_timeout ",
        "client_body_timeout ",
        "send_timeout ",
    ):
        assert directive in text
    assert "proxy_set_header Host $http_host;" in text  # which the guard compares with the Origin


def test_passwords_stay_out_of_the_image_and_of_git():
    assert {"**/.env", "**/.env.*"} <= set((ROOT / ".dockerignore").read_text().splitlines())
    assert {".env", ".env.*"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_the_ui_is_behind_its_guard():
    (container,) = dict(_pods())["webserver"]["containers"]
    for service in (COMPOSE["webserver"], container):
        assert service["command"][:3] == ["python", "-m", "assets.webserver"]
    assert "UI_TOKEN:?" in COMPOSE["webserver"]["environment"]["PROCCORPUS_UI_TOKEN"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "proccorpus-ui"
    for name, token in (("explorer", "explore"), ("rewards", "reward")):
        (container,) = dict(_pods())[name]["containers"]
        assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == f"proccorpus-{token}"
    # Those that read videos of others do not hold it
    assert "PROCCORPUS_UI_TOKEN" not in COMPOSE["code"]["environment"]


LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def test_containers_can_write_nothing_but_the_corpus_and_gain_no_right():
    for _, spec in _pods():
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == LOCKED
    assert LOCKED.items() <= LAUNCHER["security_context"].items()
    assert LAUNCHER["security_context"]["runAsNonRoot"]
    for name in ("create", *SERVICES, "proxy", "upkeep"):
        assert COMPOSE[name]["read_only"]
        assert COMPOSE[name]["cap_drop"] == ["ALL"]
        assert COMPOSE[name]["security_opt"] == ["no-new-privileges:true"]


def test_who_reaches_whom():
    """Webserver and daemon alone reach the code location, people the proxy alone."""
    assert POLICIES["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (rule,) = POLICIES["code"]["ingress"]
    (source,) = rule["from"]
    assert source["podSelector"]["matchExpressions"][0]["values"] == ["webserver", "daemon"]
    assert [p["port"] for p in rule["ports"]] == [4000]
    shut = {p["podSelector"]["matchLabels"]["app"] for n, p in POLICIES.items() if n != "nobody"}
    assert shut <= {name for name, _ in _pods()}
    for name in ("webserver", "explorer", "rewards"):
        (rule,) = POLICIES[name]["ingress"]
        assert rule["from"][0] == {"podSelector": {"matchLabels": {"app": "proxy"}}}
    assert [p["port"] for p in POLICIES["proxy"]["ingress"][0]["ports"]] == [3000, 7680, 8700]


SERVICES = ("code", "webserver", "daemon", "explorer", "rewards")


@pytest.mark.parametrize("name", [*SERVICES, "proxy", "upkeep"])
def test_a_service_is_the_same_in_compose_and_in_a_cluster(name):
    """By its command, which tests/stack starts; with a probe that a person can ask, and limits."""
    (container,) = dict(_pods())[name]["containers"]
    network = COMPOSE["explorer"]["command"][-1].partition("=")[2]
    container_words = [
        word.replace("$(POD_NETWORK)", network)
        for word in container.get("command") or container["args"]
    ]
    assert container_words == COMPOSE[name]["command"]
    assert container["resources"]["limits"]["memory"]
    assert COMPOSE[name]["mem_limit"]
    assert COMPOSE[name]["pids_limit"]
    if name == "upkeep":
        return
    assert COMPOSE[name]["healthcheck"]["test"]
    assert "livenessProbe" in container
    budgets = [
        m["spec"]
        for m in MANIFESTS
        if m["kind"] == "PodDisruptionBudget" and m["metadata"]["name"] == name
    ]
    assert [b["selector"]["matchLabels"] for b in budgets] == [{"app": name}]
    if path := container["livenessProbe"].get("httpGet", {}).get("path"):
        ready = container["readinessProbe"]["httpGet"]["path"]
        assert f":{container['ports'][0]['containerPort']}{ready}" in " ".join(
            COMPOSE[name]["healthcheck"]["test"]
        )
        assert path in ("/server_info", "/healthz")


def test_alerts_and_dashboard_ask_for_metrics_that_there_are():
    ours = set(yaml.safe_load((ROOT / "assets" / "metrics.yaml").read_text()))
    ours |= set(re.findall(r"^proccorpus_\w+", (DEPLOY / "scheduled.sh").read_text(), re.MULTILINE))
    registry = Metrics(lambda: 0, lambda: 0).registry
    ours |= {f"{f.name}{end}" for f, end in product(registry.collect(), ("", "_total", "_bucket"))}
    rules = list(
        chain.from_iterable(
            group["rules"] for group in yaml.safe_load(ALERTS.read_text())["groups"]
        )
    )
    assert len({rule["alert"] for rule in rules}) == len(rules) > 8
    assert all({"expr", "labels", "annotations"} <= rule.keys() for rule in rules)
    board = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
    expressions = [rule["expr"] for rule in rules] + [
        t["expr"] for t in chain.from_iterable(map(itemgetter("targets"), board["panels"]))
    ]
    metric_names = set(
        chain.from_iterable(re.findall(r"\bproccorpus_\w+", text) for text in expressions)
    )
    assert metric_names <= ours
    assert {n for n in ours if "reward" not in n and "_ended_" not in n} <= {
        *metric_names,
        "proccorpus_findings",
    }
    scraped = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    assert scraped["rule_files"] == [ALERTS.name]
    assert [c["static_configs"][0]["targets"] for c in scraped["scrape_configs"]] == [
        ["webserver:3000"],
        ["rewards:8700"],
    ]
