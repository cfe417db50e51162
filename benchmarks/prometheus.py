"""Counters out of Prometheus' text format."""

from __future__ import annotations

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def read(url: str) -> str:
    """What a metrics endpoint says now."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
        return content.decode()


def total(text: str, name: str, **labels: str) -> int:
    """The sum of one metric's samples whose labels match these patterns wholly; 0 where there is none."""
    found = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and all(
                re.fullmatch(pattern, sample.labels.get(label, "")) for label, pattern in labels.items()
            ):
                found += sample.value
    return round(found)
