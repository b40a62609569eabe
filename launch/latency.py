"""Latency of the models on this machine, as a table: `python -m launch.latency --models=models`.

Eight models, unpaced and in both pacing modes, on one core slot, beside the paper's local response times (fitted to
Table V). It says whether the order of the models is the paper's. Times are ms.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import statistics

import numpy as np
from absl import flags

from edge_cloud.runtime import IMAGE_SHAPE, RUNTIME, load_pool, measure_cpu_ms
from edge_cloud.slots import Pacing, Slots
from launch.fleet.model_files import read_recipes
from launch.host import errors
from launch.host.errors import InputError

_MODELS = flags.DEFINE_string("models", "models", "Folder of the model files (python -m launch.models).")
_POOL = flags.DEFINE_string("pool", "data/pools/mobilenet.toml", "Model pool (Table III): names and types.")
_PAPER = flags.DEFINE_string("paper", "data/calibration/paper.json", "Calibration whose local_ms to compare with.")
_SCALE = flags.DEFINE_float("scale", 20.0, "Pacing scale; about 36 gives the paper's magnitudes.", lower_bound=1.0)
_REPEATS = flags.DEFINE_integer("repeats", 20, "Inferences of each model and mode.", lower_bound=2)

CLOSE = 0.05  # two models whose times differ by less have no order


def _times(folder: pathlib.Path, names: tuple[str, ...], pacing: Pacing, repeats: int) -> dict[str, list[float]]:
    """Times for which a core slot is held, by model."""
    slots = Slots(lambda: load_pool(folder, names), 1, pacing, 1)
    image = np.random.default_rng(0).integers(0, 256, IMAGE_SHAPE, np.uint8)
    try:
        for name in names:
            slots.run(name, image, 60.0)  # to warm up
        return {name: [slots.run(name, image, 60.0).compute_ms for _ in range(repeats)] for name in names}
    finally:
        slots.close()


def disagreements(ours: dict[str, float], theirs: dict[str, float]) -> list[str]:
    """Pairs of models that we order otherwise than they do, where both tell them apart by more than 5 %."""

    def order(times: dict[str, float], one: str, other: str) -> int:
        difference = times[one] - times[other]
        return 0 if abs(difference) <= CLOSE * max(times[one], times[other]) else (1 if difference > 0.0 else -1)

    pairs = itertools.combinations(ours, 2)
    return [f"{one}, {other}" for one, other in pairs if order(ours, one, other) * order(theirs, one, other) < 0]


def main() -> None:
    """Measures and prints the table, as Markdown."""
    folder, recipes = pathlib.Path(_MODELS.value), read_recipes(pathlib.Path(_POOL.value))
    names = tuple(recipe.name for recipe in recipes)
    try:
        cpu_ms = measure_cpu_ms(load_pool(folder, names))
        paper = json.loads(pathlib.Path(_PAPER.value).read_text(encoding="utf-8"))["local_ms"]
    except (ValueError, KeyError, OSError) as error:
        raise InputError(str(error)) from error
    modes = {mode: Pacing(mode, _SCALE.value, cpu_ms) for mode in ("off", "measured", "calibrated")}
    times = {mode: _times(folder, names, pacing, _REPEATS.value) for mode, pacing in modes.items()}

    def cell(values: list[float]) -> str:
        median = statistics.median(values)
        return f"{median:.2f} ± {100.0 * statistics.stdev(values) / median:.1f} %"

    print(f"Runtime {RUNTIME}, one thread, scale {_SCALE.value:g}, {_REPEATS.value} inferences each:")
    print("median ± standard deviation, ms.\n")
    print("| model | type | CPU time | off | measured | calibrated | paper, local |")
    print("|---|---|---|---|---|---|---|")
    for recipe in recipes:
        cells = " | ".join(cell(times[mode][recipe.name]) for mode in modes)
        print(
            f"| {recipe.name} ({recipe.width:g}) | {recipe.kind} | {cpu_ms[recipe.name]:.2f} | {cells} | "
            f"{f'{paper[recipe.name]:.1f}' if recipe.name in paper else 'none'} |"
        )
    known = {name: float(paper[name]) for name in names if name in paper}
    wrong = disagreements({name: cpu_ms[name] for name in known}, known)
    verdict = "none" if not wrong else "; ".join(wrong)
    print(f"\nPairs ordered otherwise than in the paper (differences over {100 * CLOSE:g} % in both): {verdict}")


if __name__ == "__main__":
    errors.run(main)
