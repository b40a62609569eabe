"""What a process may use, on systems that tell it in other ways or not at all."""

from __future__ import annotations

import os
import pathlib
import re
import resource

import pytest

from launch.host import resources
from tests.helpers.imports import ROOT


def test_cores_are_those_of_this_process_or_the_machines(monkeypatch):
    assert resources.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert resources.cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert resources.cores() == 1


@pytest.mark.parametrize(("unit", "told"), [(1024, 3 * 2**20), (1, 3 * 2**30)])
def test_memory_is_counted_in_the_systems_unit(monkeypatch, unit, told):
    monkeypatch.setattr(resources, "_MAXRSS_UNIT", unit)
    monkeypatch.setattr(resource, "getrusage", lambda kind: type("Usage", (), {"ru_maxrss": told}))
    assert resources.peak_memory_gib() == 3.0
    assert resources.peak_memory_gib(children=True) == 6.0


def test_nothing_else_asks_the_system_for_them():
    """One place that minds other systems; `beyond` keeps to one core, and says so where that can't be done."""
    asking = re.compile(r"sched_[gs]etaffinity|ru_maxrss|process_cpu_count")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("hl_jax", "launch", "edge_cloud")
        for path in pathlib.Path(ROOT / folder).rglob("*.py")
        if asking.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"launch/host/resources.py", "launch/beyond/searching.py"}
