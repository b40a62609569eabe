"""The one module that knows which TFLite runtime a device has, and how a LiteRT file is run.

LiteRT (`ai-edge-litert`) is the runtime. `tflite-runtime`, its predecessor, has the same `Interpreter` and serves
devices for which LiteRT has no wheel; its last release needs numpy < 2 and runs int8 slower than fp32.
"""

from __future__ import annotations

import pathlib
import statistics
import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter

    RUNTIME = "ai-edge-litert"
except ImportError:
    from tflite_runtime.interpreter import Interpreter

    RUNTIME = "tflite-runtime"
    warnings.warn("tflite-runtime runs int8 models slower than fp32 ones: prefer ai-edge-litert", stacklevel=2)

IMAGE_SHAPE = (224, 224, 3)
IMAGE_BYTES = 224 * 224 * 3
TOP = 5


class Inference(NamedTuple):
    """What one run gives: the five most probable classes, best first, with their scores, and its CPU time (ms)."""

    classes: tuple[int, ...]
    scores: tuple[float, ...]
    cpu_ms: float


class Model:
    """One LiteRT classifier on one thread. Not for two threads at once: each core slot loads its own.

    Raises:
      ValueError: if the file isn't a classifier of 224 x 224 x 3 images.
    """

    def __init__(self, path: pathlib.Path) -> None:
        try:
            self._interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(f"model: expected a LiteRT file, found {error} at {path}") from error
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        shape = tuple(int(size) for size in self._input["shape"])
        if shape != (1, *IMAGE_SHAPE):
            raise ValueError(f"model: expected input shape {(1, *IMAGE_SHAPE)}, found {shape} in {path}")
        self._pixels = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
        if self._input["dtype"] == np.int8:
            scale, zero = self._input["quantization"]
            self._pixels = np.clip(np.round(self._pixels / scale) + zero, -128, 127).astype(np.int8)

    def classify(self, image: np.ndarray) -> Inference:
        """Runs the model on an image [224, 224, 3], uint8. The CPU time covers scaling and the ranking too."""
        started = time.thread_time()
        self._interpreter.set_tensor(self._input["index"], self._pixels[image][None])
        self._interpreter.invoke()
        output = self._interpreter.get_tensor(self._output["index"])[0]
        best = np.argsort(output)[: -TOP - 1 : -1]
        scale, zero = self._output["quantization"]
        scores = output[best].astype(np.float32)
        if scale:
            scores = (scores - zero) * scale
        cpu_ms = 1000.0 * (time.thread_time() - started)
        return Inference(tuple(best.tolist()), tuple(scores.tolist()), cpu_ms)


def load_pool(folder: pathlib.Path, names: tuple[str, ...]) -> dict[str, Model]:
    """Loads `folder/NAME.tflite` for every name, and runs each once: the first run takes half as long again.

    Raises:
      ValueError: if a file is missing or can't be used.
    """
    models = {name: Model(folder / f"{name}.tflite") for name in names}
    for model in models.values():
        model.classify(np.zeros(IMAGE_SHAPE, np.uint8))
    return models


def measure_cpu_ms(models: Mapping[str, Model], repeats: int = 15) -> dict[str, float]:
    """Median CPU time of one inference of each model, ms, after two to warm up."""
    image = np.random.default_rng(0).integers(0, 256, IMAGE_SHAPE, np.uint8)
    times = {}
    for name, model in models.items():
        runs = [model.classify(image).cpu_ms for _ in range(repeats + 2)]
        times[name] = statistics.median(runs[2:])
    return times
