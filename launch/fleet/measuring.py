"""Measures the LiteRT files of a folder on this machine, as a node runs them: one thread, the image scaled and ranked.

What a target's rows in a profile are made of: `python -m launch.profiles --measure=MODELS_DIR`.
"""

from __future__ import annotations

import os
import pathlib
import time

import numpy as np

from edge_cloud.runtime import IMAGE_SHAPE, RUNTIME, Model
from launch.host.errors import InputError
from launch.host.progress import Progress


def runtime_name() -> str:
    """What runs models here, as a profile names it."""
    return f"{RUNTIME}, one thread"


def model_paths(folder: pathlib.Path) -> list[pathlib.Path]:
    """The LiteRT files of a folder, by name.

    Raises:
      InputError: if there is none.
    """
    there = os.path.isdir(folder)
    paths = sorted(folder.glob("*.tflite")) if there else []
    if not paths:
        found = "no such file" if there else "no such folder"
        raise InputError(f"measure: expected a folder with files NAME.tflite, found {found} at {str(folder)!r}")
    return paths


def measure(folder: pathlib.Path, warmup: int, runs: int) -> dict[str, list[float]]:
    """Times of single inferences of each model of a folder, ms by name: from the image until its classes are there.

    Args:
      folder: with files NAME.tflite.
      warmup: first inferences of each model that don't count; the first of all allocates.
      runs: of each model that count.

    Raises:
      InputError: if there is no such file, or one isn't an image classifier.
    """
    image = np.random.default_rng(0).integers(0, 256, IMAGE_SHAPE, np.uint8)
    try:
        models = {path.stem: Model(path) for path in model_paths(folder)}
        times: dict[str, list[float]] = {}
        with Progress(len(models), 0, "measuring", "model") as progress:
            for name, model in models.items():
                for _ in range(warmup):
                    model.classify(image)
                times[name] = []
                for _ in range(runs):
                    started = time.perf_counter()
                    model.classify(image)
                    times[name].append(1000.0 * (time.perf_counter() - started))
                progress.advance(1, f"{name} {np.median(times[name]):.2f} ms")
    except ValueError as error:
        raise InputError(str(error)) from error
    return times
