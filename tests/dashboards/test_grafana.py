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


def test_every_metric_is_drawn_and_every_drawn_metric_exists() -> None:
    """No panel asks for a metric that nobody writes, and no metric is written that nobody sees."""
    drawn = {
        re.sub("_(total|bucket)$", "", name)
        for expression in EXPRESSIONS
        for name in re.findall(r"weir_\w+", expression)
    }
    measured = {metric.name for metric in telemetry.REGISTRY.collect()}

    assert drawn == measured


def test_labels_in_panels_exist() -> None:
    """A panel groups only by labels that its metric has, or that Prometheus adds."""
    labels = {
        metric.name: set(getattr(collector, "_labelnames", ())) | {"le", "instance"}
        for collector in telemetry.REGISTRY._collector_to_names
        for metric in collector.collect()
    }
    for expression in EXPRESSIONS:
        names = {re.sub("_(total|bucket)$", "", n) for n in re.findall(r"weir_\w+", expression)}
        grouped = {
            label.strip()
            for by in re.findall(r"by \(([^)]*)\)", expression)
            for label in by.split(",")
        }
        for name in names:
            assert grouped <= labels[name], expression
