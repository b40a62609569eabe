"""The one module that knows which TFLite runtime a device has, and how a LiteRT file is run.

LiteRT (`ai-edge-litert`) is the runtime. `tflite-runtime`, its predecessor, has the same `Interpreter` and serves
devices for which LiteRT has no wheel; its last release needs numpy < 2 and runs int8 slower than fp32.
"""

from __future__ import annotations

import pathlib
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
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
TYPES = ("float32", "int8", "uint8")


class Inference(NamedTuple):
    """What one run gives: the five best classes (all of fewer), best first, their scores, and its CPU time (ms)."""

    classes: tuple[int, ...]
    scores: tuple[float, ...]
    cpu_ms: float


class Model:
    """One LiteRT classifier on one thread. Not for two threads at once: each core slot loads its own.

    What a file must be (edge_cloud/README.md says it for users): one input [1, 224, 224, 3], float32 in [-1, 1], or
    int8 or uint8 by its own quantization; one output of at least two classes, float32, int8 or uint8. Scores are given
    as the file has them, probabilities or logits.

    Raises:
      ValueError: if the file isn't such a classifier, naming it, the tensor, what was expected and what was found.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        try:
            self._interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(
                f"model: expected a LiteRT file, found {' '.join(str(error).split())} at {path}"
            ) from error
        self._input = self._only("input", self._interpreter.get_input_details())
        self._output = self._only("output", self._interpreter.get_output_details())
        shape = tuple(int(size) for size in self._input["shape"])
        self._require("input", shape == (1, *IMAGE_SHAPE), f"shape {(1, *IMAGE_SHAPE)}", shape)
        shape = tuple(int(size) for size in self._output["shape"])
        one_row = len(shape) > 0 and shape[-1] >= 2 and int(np.prod(shape)) == shape[-1]
        self._require("output", one_row, "shape (1, C) of at least two classes", shape)
        for end, details in (("input", self._input), ("output", self._output)):
            kind = np.dtype(details["dtype"]).name
            self._require(end, kind in TYPES, f"one of {', '.join(TYPES)}", kind)
        self._pixels = self._pixel_values()

    def _only(self, end: str, details: Sequence[Any]) -> Any:
        names = ", ".join(repr(one["name"]) for one in details) or "none"
        self._require(f"{end}s", len(details) == 1, f"one {end}", f"{len(details)} ({names})", tensor=False)
        return details[0]

    def _require(self, end: str, fine: bool, expected: str, found: object, tensor: bool = True) -> None:
        if not fine:
            name = f" of tensor {getattr(self, f'_{end}')['name']!r}" if tensor else ""
            raise ValueError(f"model {end}: expected {expected}, found {found}{name} in {self.path}")

    def _pixel_values(self) -> np.ndarray:
        """What each of a pixel's 256 values is to the model. [256]."""
        kind, (scale, zero) = np.dtype(self._input["dtype"]), self._input["quantization"]
        if kind == np.uint8 and not scale:
            return np.arange(256, dtype=np.uint8)  # it takes pixels as they are
        values = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
        if kind == np.float32:
            return values
        self._require("input", scale > 0.0, "a quantization scale above 0", scale)
        limits = np.iinfo(kind)
        rounded: np.ndarray = np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(kind)
        return rounded

    def classify(self, image: np.ndarray) -> Inference:
        """Runs the model on an image [224, 224, 3], uint8. The CPU time covers scaling and the ranking too.

        Raises:
          ValueError: if the model gives scores that aren't finite.
        """
        started = time.thread_time()
        self._interpreter.set_tensor(self._input["index"], self._pixels[image][None])
        self._interpreter.invoke()
        output = self._interpreter.get_tensor(self._output["index"]).reshape(-1)
        best = np.argsort(output)[: -TOP - 1 : -1]
        scale, zero = self._output["quantization"]
        scores = output[best].astype(np.float32)
        if scale:
            scores = (scores - zero) * scale
        cpu_ms = 1000.0 * (time.thread_time() - started)
        # A sort puts NaN last, so that it comes out as the best.
        self._require("output", bool(np.isfinite(scores).all()), "finite scores", scores.tolist())
        return Inference(tuple(best.tolist()), tuple(scores.tolist()), cpu_ms)


def load_pool(folder: pathlib.Path, names: tuple[str, ...]) -> dict[str, Model]:
    """Loads `folder/NAME.tflite` for every name, and runs each once: the first run takes half as long again.

    Raises:
      ValueError: if a file is missing or can't be used, or says nothing finite of a black image.
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
