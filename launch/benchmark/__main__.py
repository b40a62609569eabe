"""Speed, against something public in the same run: `python -m launch.benchmark` (needs requirements-peer.txt).

One K-best search over all joint actions; `dqn` against Stable-Baselines3's; requests through queues against SimPy.
Compile times stand apart. Peers take turns, so that a change of the machine's speed meets both.
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags

from launch.benchmark.learning import learning_figures, search_figures
from launch.benchmark.queues import queue_figures
from launch.host import errors, files, provenance
from launch.host.errors import InputError
from launch.host.records import as_data
from launch.inputs.flags import scenario_file
from launch.inputs.scenario_files import papers

FLAGS = flags.FLAGS
flags.DEFINE_integer("repeats", 3, "Turns that each peer takes.", lower_bound=1)
flags.DEFINE_string("out", "", "JSON file for the figures.")


def main() -> None:
    """Prints the figures, and writes them where --out says."""
    scenario = papers(scenario_file())
    if scenario.traffic is not None:
        raise InputError("--traffic: expected none, since the benchmark has requests of its own, found some")
    print(f"{'users':>5} {'joint actions':>14} {'K-best search':>14} {'compile':>9}")
    search, learning = [], []
    fleets = [scenario.with_users(users) for users in (3, 4, 5) if users <= scenario.users]
    for fleet in fleets:
        found = search_figures(fleet)
        search.append(found)
        time_text = f"{found.search_ms:.3f} ms"
        print(f"{found.users:>5} {found.joint_actions:>14} {time_text:>14} {found.compile_s:>7.1f} s")
    print(
        f"{'users':>5} {'dqn':>14} {'SB3 DQN':>14} {'ratio':>9} {'compile':>9}   (steps/s, one update of a batch each)"
    )
    for fleet in fleets:
        row = learning_figures(fleet, FLAGS.repeats)
        learning.append(row)
        speeds = f"{row.ours_steps_per_s:>14.0f} {row.stable_baselines3_steps_per_s:>14.1f}"
        print(f"{row.users:>5} {speeds} {row.ratio:>8.1f}x {row.compile_s:>7.1f} s", flush=True)
    print(f"{'devices':>7} {'rollouts':>8} {'ours':>12} {'SimPy':>10} {'ratio':>9} {'compile':>9}   (requests/s)")
    queues = queue_figures(scenario, FLAGS.repeats)
    for line in queues:
        speeds = f"{line.ours_requests_per_s:>12,.0f} {line.simpy_requests_per_s:>10,.0f}"
        print(f"{line.devices:>7} {line.rollouts:>8} {speeds} {line.ratio:>8.0f}x {line.compile_s:>7.1f} s", flush=True)
    if FLAGS.out:
        figures = {
            "command": "python -m launch.benchmark " + " ".join(sys.argv[1:]),
            "commit": provenance.commit() or "unknown",
            "machine": as_data(provenance.machine()),
            "versions": provenance.versions(),
            "search": as_data(search),
            "learning": as_data(learning),
            "queues": as_data(queues),
        }
        files.write_json(pathlib.Path(FLAGS.out), figures, indent=2)


if __name__ == "__main__":
    errors.run(main)
