"""Pictures of a real fleet: `python -m launch.testbed_figures --topology=RUN --out=…` and `--regret=NAME=RUN,…`.

The first shows who computes what under one run's decision, with every device's response time; the second regret of the
greedy decision (by the twin's times) against real steps, for runs that started differently.
"""

from __future__ import annotations

import pathlib

from absl import flags

from launch import errors
from launch.checkpoints import write_atomically
from launch.errors import InputError
from launch.fleet_figures import regret, topology

_TOPOLOGY = flags.DEFINE_string("topology", "", "Finished run on real nodes; its first seed's policy is drawn.")
_REGRET = flags.DEFINE_list("regret", [], "NAME=RUN_FOLDER of finished runs with a twin, to compare.")
_OUT = flags.DEFINE_string("out", None, "PNG file to write.", required=True)


def main() -> None:
    """Draws what is asked for."""
    if bool(_TOPOLOGY.value) == bool(_REGRET.value):
        raise InputError("--topology, --regret: expected one of them, found both or none")
    if _TOPOLOGY.value:
        content = topology(pathlib.Path(_TOPOLOGY.value))
    else:
        parts = [entry.partition("=") for entry in _REGRET.value]
        if any(not folder for _, _, folder in parts):
            raise InputError(f"--regret: expected NAME=RUN_FOLDER,…, found {','.join(_REGRET.value)!r}")
        content = regret({name: pathlib.Path(folder) for name, _, folder in parts})
    write_atomically(pathlib.Path(_OUT.value), content)


if __name__ == "__main__":
    errors.run(main)
