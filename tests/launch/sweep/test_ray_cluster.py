"""`launch.sweep --executor=ray` on a cluster of two nodes, of which one loses its workers twice."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from launch.runs.folder import RunFolder
from launch.sweep.executors import ray_cluster
from tests.helpers.builders import ROOT
from tests.launch.sweep import test_sweep

needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs requirements-ray.txt")

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
memory = {"object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
node = cluster.add_node(num_cpus=1, **memory)
print(cluster.address, node.all_processes["raylet"][0].process.pid, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[tuple[str, int]]:
    """Its address, and the process of the second node that starts its workers."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            words = line.split()
            if len(words) == 2 and words[1].isdecimal():
                yield words[0], int(words[1])
                break
        else:
            pytest.fail("the cluster didn't start")
    finally:
        process.communicate(timeout=120)  # the end of its input ends it


def workers_of(node: int) -> list[int]:
    """Processes of Ray workers that a node has started."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == node and command.startswith(b"ray::Worker"):  # not the agents, without which the node dies
            found.append(int(folder.name))
    return found


@needs_ray
@pytest.mark.process
@pytest.mark.clock
def test_a_node_that_loses_its_workers_changes_nothing(tmp_path, cluster):
    address, node = cluster
    whole, out = tmp_path / "local", tmp_path / "ray"
    # Long enough that the second node has a new worker, which must start JAX, before the first has done everything.
    work = ("--epochs=120", "--epoch_steps=200", "--seeds=8")
    test_sweep.finish(test_sweep.start(whole, *work))
    process = test_sweep.start(out, *work, "--executor=ray", f"--ray_address={address}")
    test_sweep.wait_for(process, out, "units/*/*/summary.json")
    killed: set[int] = set()
    for _ in range(2):
        while not (new := set(workers_of(node)) - killed):
            assert process.poll() is None
            time.sleep(0.02)
        for pid in new:
            os.kill(pid, signal.SIGKILL)
        killed |= new
    said = test_sweep.finish(process)
    assert "Ray worker ended" in said
    found = test_sweep.results(out)
    assert len(found) == 16
    assert found == test_sweep.results(whole)
    assert sorted(path.name for path in next(out.glob("units/*/seed-0000")).iterdir()) == [
        *("config.json", "decisions.md", "metrics.csv", "summary.json")
    ]


def test_files_are_written_with_the_summary_last(tmp_path, monkeypatch):
    wrote = []
    monkeypatch.setattr(ray_cluster, "write_atomically", lambda path, content: wrote.append(path.name))
    (tmp_path / "checkpoints").mkdir()
    files = {"summary.json": b"", "a.csv": b"", "checkpoints/z.ckpt": b"", "config.json": b""}
    ray_cluster.write_files(RunFolder(tmp_path), files)
    assert wrote == ["a.csv", "z.ckpt", "config.json", "summary.json"]


@pytest.mark.skipif(bool(importlib.util.find_spec("ray")), reason="Ray is installed")
def test_without_ray_it_says_what_is_missing(refused, tmp_path):
    line = refused(*test_sweep.TINY, f"--run_dir={tmp_path}", "--executor=ray", name="sweep", cwd=ROOT)
    assert "--executor=ray: expected requirements-ray.txt installed" in line
