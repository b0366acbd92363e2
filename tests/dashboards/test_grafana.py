"""The Grafana dashboards draw what the pipeline measures."""

import json
import re
from pathlib import Path

from pipeline import telemetry

FOLDER = Path(__file__).parent.parent.parent / "dashboards" / "grafana"
EXPRESSIONS = [
    target["expr"]
    for path in FOLDER.glob("*.json")
    for panel in json.loads(path.read_text())["panels"]
    for target in panel["targets"]
]


def names_in(expression: str) -> set[str]:
    """Return the metrics that a panel asks for."""
    return {re.sub("_(total|bucket)$", "", n) for n in re.findall(r"weir_\w+", expression)}


def test_every_metric_is_drawn_and_every_drawn_metric_exists() -> None:
    """No panel asks for a metric that nobody writes, and none is written that nobody sees; a shadow has the same."""
    drawn = {name for expression in EXPRESSIONS for name in names_in(expression)}
    measured = {metric.name for metric in telemetry.REGISTRY.collect()}
    shadowed = {name for name in drawn if name.startswith("weir_shadow_")}

    assert drawn - shadowed == measured
    assert "weir_shadow_decisions" in shadowed
    assert {name.replace("weir_shadow_", "weir_") for name in shadowed} < measured


def test_labels_in_panels_exist() -> None:
    """A panel groups only by labels that its metric has, or that Prometheus adds."""
    labels = {
        metric.name: set(getattr(collector, "_labelnames", ())) | {"le", "instance"}
        for collector in telemetry.REGISTRY._collector_to_names
        for metric in collector.collect()
    }
    for expression in EXPRESSIONS:
        names = {name.replace("weir_shadow_", "weir_") for name in names_in(expression)}
        grouped = {
            label.strip()
            for by in re.findall(r"by \(([^)]*)\)", expression)
            for label in by.split(",")
        }
        for name in names:
            assert grouped <= labels[name], expression
