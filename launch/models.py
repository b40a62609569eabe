"""Builds the models of a pool as LiteRT files: `python -m launch.models` makes d0..d7 of Table III.

Weights are random by default: response times are real then, accuracies are Table III's, not measured. Whoever has
pretrained Keras MobileNet weight files points to them with --weights_dir.
"""

from __future__ import annotations

import pathlib
import time

from absl import flags

from launch.fleet.model_files import build, read_recipes
from launch.host import errors

_OUT = flags.DEFINE_string("out", "models", "Folder of the model files, which is also their cache.")
_POOL = flags.DEFINE_string("pool", "data/pools/mobilenet.toml", "Model pool (Table III): widths and types.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of random weights and of the random calibration images.", lower_bound=0)
_WEIGHTS = flags.DEFINE_string(
    "weights_dir", None, "Folder of Keras MobileNet weight files (mobilenet_1_0_224_tf.h5, …); default: random weights."
)
_IMAGES = flags.DEFINE_string(
    "calibration_images",
    None,
    "An .npy file of uint8 images [n, 224, 224, 3] that set the ranges of Int8 models; default: 8 random ones. With "
    "pretrained weights give real ones, or accuracy suffers.",
)


def main() -> None:
    """Builds what is missing and says what is there."""
    started = time.monotonic()
    folder, recipes = pathlib.Path(_OUT.value), read_recipes(pathlib.Path(_POOL.value))
    built = build(folder, recipes, _SEED.value, _WEIGHTS.value, _IMAGES.value)
    for recipe in recipes:
        path = folder / f"{recipe.name}.tflite"
        state = "built" if recipe.name in built else "kept"
        print(f"{recipe.name}  {recipe.width:<4g} {recipe.kind:<4}  {path.stat().st_size / 1e6:5.2f} MB  {state}")
    weights = f"from {_WEIGHTS.value}" if _WEIGHTS.value else f"random (seed {_SEED.value}): accuracies are Table III's"
    print(f"{folder}: weights {weights}; {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    errors.run(main)
