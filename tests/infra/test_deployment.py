"""Compose and Kubernetes files hold together, and nothing runs with more rights than it needs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.beside import PARTS, ports
from pipeline.config import Settings, environment

INFRA = Path(__file__).parent.parent.parent / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OBJECTS = [
    found
    for path in sorted((INFRA / "kubernetes").glob("*.yaml"))
    for found in yaml.safe_load_all(path.read_text())
]
WORKLOADS = [o for o in OBJECTS if o["kind"] in {"Deployment", "StatefulSet", "Job"}]


def name(found: dict[str, Any]) -> str:
    """Return what an object is called."""
    return f"{found['kind']}-{found['metadata']['name']}"


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each container with the pod that it is in."""
    for workload in WORKLOADS:
        pod = workload["spec"]["template"]["spec"]
        for container in pod["containers"]:
            yield container, pod


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_waits_only_for_services_that_exist(service: str) -> None:
    """What a Compose service depends on is in the file; what must be healthy has a health check."""
    needs = SERVICES[service].get("depends_on", [])
    conditions = needs if isinstance(needs, dict) else {other: {} for other in needs}

    assert set(conditions) <= set(SERVICES)
    for other, condition in conditions.items():
        if condition.get("condition") == "service_healthy":
            assert "healthcheck" in SERVICES[other]


def test_images_are_pinned() -> None:
    """No image is called latest, ours is built from the Dockerfile that is there."""
    images = [service["image"] for service in SERVICES.values()]
    foreign = [image for image in images if image != COMPOSE["x-weir"]["image"]]

    assert all(re.search(r":[\w.-]*\d", image) for image in foreign)
    assert (INFRA.parent / COMPOSE["x-weir"]["build"]["dockerfile"]).is_file()


def test_mounted_files_exist() -> None:
    """What Compose mounts from the repository is there, and volumes with names are declared."""
    mounts = [v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])]

    for mount in mounts:
        if mount.startswith("."):
            assert (INFRA / mount).exists()
        else:
            assert mount in COMPOSE["volumes"]


def test_every_pipeline_has_a_name_of_its_own() -> None:
    """Two pipelines under one name would fence each other."""
    names = [
        service["environment"]["WEIR_INSTANCE"]
        for service in SERVICES.values()
        if service.get("command") == ["run"]
    ]

    assert len(names) >= 2
    assert len(set(names)) == len(names)


def ports_with(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return the ports that the processes of a pipeline open with these variables, by its part."""
    for known in [known for known in environment() if known.startswith("WEIR_")]:
        monkeypatch.delenv(known)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    return ports(Settings())


def test_prometheus_scrapes_every_process_of_every_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each port that a pipeline service of Compose opens is a target, under the name of its part, and no other is."""
    scraped = yaml.safe_load((INFRA / "monitoring" / "prometheus.yaml").read_text())
    [job] = scraped["scrape_configs"]
    targets = [(t, s["labels"]["part"]) for s in job["static_configs"] for t in s["targets"]]

    opened = [
        (f"{service}:{port}", part)
        for service, said in SERVICES.items()
        if said.get("command") == ["run"]
        for part, port in ports_with(said["environment"], monkeypatch).items()
    ]
    assert sorted(targets) == sorted(opened)
    assert {part for _, part in opened} == {"uploads", *PARTS} - {"shadow"}


def test_a_pipelines_pod_declares_every_port_that_it_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pod and service have a port for each process, and no annotation has Prometheus look at one of them only."""
    [settings] = [o for o in OBJECTS if o["kind"] == "ConfigMap"]
    [pipeline] = [o for o in OBJECTS if o["kind"] == "StatefulSet"]
    service = next(
        o for o in OBJECTS if o["kind"] == "Service" and o["metadata"]["name"] == "weir-pipeline"
    )
    template = pipeline["spec"]["template"]
    [container] = template["spec"]["containers"]

    opened = ports_with(settings["data"], monkeypatch)
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == opened
    assert {p["targetPort"]: p["port"] for p in service["spec"]["ports"]} == opened
    assert template["metadata"]["annotations"] == {"prometheus.io/scrape": "true"}
    probed = {container[kind]["httpGet"]["port"] for kind in ("startupProbe", "livenessProbe")}
    assert probed == {"uploads"}


@pytest.mark.parametrize("workload", WORKLOADS, ids=name)
def test_a_workload_finds_its_own_pods(workload: dict[str, Any]) -> None:
    """The selector of a Deployment or StatefulSet matches the labels of its own template."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    wanted = workload["spec"].get("selector", {}).get("matchLabels", labels)

    assert wanted.items() <= labels.items()


def test_services_and_budgets_select_pods_that_exist() -> None:
    """What selects pods by label selects some."""
    pods = [w["spec"]["template"]["metadata"]["labels"] for w in WORKLOADS]
    for found in OBJECTS:
        if found["kind"] == "Service":
            wanted = found["spec"]["selector"]
        elif found["kind"] == "PodDisruptionBudget":
            wanted = found["spec"]["selector"]["matchLabels"]
        else:
            continue
        assert any(wanted.items() <= labels.items() for labels in pods), name(found)


def test_no_container_has_more_rights_than_it_needs() -> None:
    """No pod runs as root or has an account's token; no container may gain rights; each has a memory limit."""
    for container, pod in containers():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_a_pipeline_goes_by_the_name_of_its_pod() -> None:
    """The pipeline is a StatefulSet, and its instance name is its pod's, which survives a restart."""
    pipeline = next(o for o in OBJECTS if o["metadata"]["name"] == "weir-pipeline")
    (container,) = pipeline["spec"]["template"]["spec"]["containers"]
    instance = next(e for e in container["env"] if e["name"] == "WEIR_INSTANCE")

    assert pipeline["kind"] == "StatefulSet"
    assert instance["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_only_our_pods_reach_ray() -> None:
    """Whoever reaches Ray may run programs: a network policy closes it, and it asks for a token."""
    policy = next(o for o in OBJECTS if o["kind"] == "NetworkPolicy")
    settings = next(o for o in OBJECTS if o["kind"] == "ConfigMap")

    assert policy["spec"]["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": {"app": "weir"}}}]}
    ]
    assert settings["data"]["RAY_AUTH_MODE"] == "token"


def test_the_image_is_not_root_and_installs_the_pins() -> None:
    """The Dockerfile ends as a user, and installs what infra/constraints.txt pins."""
    text = (INFRA / "Dockerfile").read_text()

    assert re.search(r"^USER (?!root|0\b)", text, re.MULTILINE)
    assert "--constraint infra/constraints.txt" in text
