"""Builds the model files of a pool: what `python -m launch.models` does.

A Flax MobileNetV1 is lowered to StableHLO, converted to LiteRT (FP32), and quantized to full-integer Int8 where the
pool says so. The same seed and versions give the same bytes; what is there already is kept. No TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import pathlib
import tomllib
import warnings
from collections.abc import Mapping

import numpy as np
from absl import logging

from launch.host.errors import InputError
from launch.host.files import located, write_atomically, write_json

MANIFEST = "models.json"
TYPES = ("FP32", "Int8")
CALIBRATION_IMAGES = 8  # enough that random weights' ranges settle to some percent
_TOOLS = ("jax", "flax", "numpy", "litert-converter", "litert-quantizer", "ai-edge-litert")
_KERAS_WIDTHS = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One model to build: its name, width multiplier, and number type (FP32 or Int8)."""

    name: str
    width: float
    kind: str


def read_recipes(path: pathlib.Path) -> list[Recipe]:
    """What to build, from a pool file's names, descriptions ("0.75 MobileNetV1-224") and types.

    Raises:
      InputError: where the file can't be used, or describes another network.
    """
    try:
        entries = tomllib.loads(located(path).read_text(encoding="utf-8-sig"))["models"]
    except OSError as error:
        raise InputError(f"pool: expected a readable file, found {error.strerror} at {path}") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"pool: expected TOML with [[models]], found {error} in {path}") from error
    recipes = []
    for index, entry in enumerate(entries):
        where = f"models[{index}]"
        width, _, network = str(entry.get("description", "")).partition(" ")
        if network != "MobileNetV1-224" or width.replace(".", "", 1).isdigit() is False or not 0 < float(width) <= 1:
            expected = "'W MobileNetV1-224' with a width W in (0, 1]"
            raise InputError(f"{where}.description: expected {expected}, found {entry.get('description')!r} in {path}")
        if entry.get("type") not in TYPES:
            raise InputError(f"{where}.type: expected {' or '.join(TYPES)}, found {entry.get('type')!r} in {path}")
        recipes.append(Recipe(str(entry["name"]), float(width), entry["type"]))
    return recipes


def calibration_images(path: str | None, seed: int) -> np.ndarray:
    """Images [n, 224, 224, 3], uint8: a file's, or smooth random ones.

    Raises:
      InputError: if the file doesn't hold such images.
    """
    if path is None:
        # Coarse noise, enlarged: neighbouring pixels agree, as they do in photographs.
        coarse = np.random.default_rng(seed).integers(0, 256, (CALIBRATION_IMAGES, 28, 28, 3), np.uint8)
        return coarse.repeat(8, axis=1).repeat(8, axis=2)
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"calibration_images: expected an .npy file, found {error} at {path}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (224, 224, 3) or len(images) == 0:
        found = f"{images.dtype} {images.shape}"
        raise InputError(f"calibration_images: expected uint8 [n, 224, 224, 3], found {found} in {path}")
    return images


def _converted(code: bytes) -> bytes:
    """StableHLO to a LiteRT file (FP32)."""
    from litert_converter import converter_api_ext as converter
    from litert_converter.mlir import ir, passmanager

    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = ir.Module.parse(code)
        for function in module.body.operations:
            if function.name.value == "main":
                converter.set_signature(function.operation, "serving_default", ["image"], ["probabilities"])
        passes = passmanager.PassManager()
        converter.run_convert_to_tfl_passes(module, passes, converter.ConvertToTFLConfig())
        passes.run(module.operation)
        return converter.export_flatbuffer_to_bytes(module.operation)


def _quantized(model: bytes, images: np.ndarray) -> bytes:
    """A LiteRT file with int8 weights, activations, input and output; ranges from images [n, ...] in [-1, 1]."""
    from litert_quantizer import quantizer, recipe

    logging.set_verbosity(logging.WARNING)
    samples = [{"image": image[None]} for image in images]
    silence = io.StringIO()  # the quantizer prints and draws progress bars
    with warnings.catch_warnings(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        warnings.simplefilter("ignore")  # the calibrator keeps every tensor on purpose
        tool = quantizer.Quantizer(bytearray(model), recipe.static_wi8_ai8())
        # One thread: the ranges then don't depend on the machine's number of cores.
        result = tool.calibrate({"serving_default": samples}, num_threads=1)
        return bytes(tool.quantize(result).quantized_model)


def _weights_path(folder: str, width: float) -> pathlib.Path:
    if width not in _KERAS_WIDTHS:
        known = ", ".join(f"{known:g}" for known in _KERAS_WIDTHS)
        raise InputError(f"weights_dir: expected a width of {known}, found {width:g}; leave it out for random weights")
    return pathlib.Path(folder) / f"mobilenet_{_KERAS_WIDTHS[width]}_224_tf.h5"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_manifest(folder: pathlib.Path) -> dict[str, object]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing kept, or nothing usable: everything is built anew
    return manifest if isinstance(manifest, dict) else {}


def _is_kept(folder: pathlib.Path, name: str, made_from: Mapping[str, object], manifest: Mapping[str, object]) -> bool:
    """Whether the file is there, whole, and made from the same things."""
    entry = manifest.get(name)
    if not isinstance(entry, dict):
        return False
    path = folder / f"{name}.tflite"
    return entry.get("made_from") == made_from and path.is_file() and _digest(path.read_bytes()) == entry.get("sha256")


def build(
    folder: pathlib.Path,
    recipes: list[Recipe],
    seed: int = 0,
    weights_dir: str | None = None,
    images_path: str | None = None,
) -> list[str]:
    """Builds the files `folder/NAME.tflite` that are missing or were made from something else.

    A file there that wasn't built so is renamed (`NAME.tflite.DIGEST.old`), not overwritten.

    Args:
      folder: where to; made if need be.
      recipes: what to build.
      seed: of random weights and images.
      weights_dir: folder of Keras weight files; None: random weights.
      images_path: .npy file of calibration images; None: random ones.

    Returns:
      The names of the models that were built now.

    Raises:
      InputError: if a folder or file can't be used, or the building tools aren't installed.
    """
    images = calibration_images(images_path, seed)
    try:
        versions = {tool: importlib.metadata.version(tool) for tool in _TOOLS}
    except importlib.metadata.PackageNotFoundError as error:
        expected = "the packages of requirements-testbed.txt and requirements-converter.txt"
        raise InputError(f"models: expected {expected}, found no {error.name}") from error
    made_from: dict[str, dict[str, object]] = {}
    for recipe in recipes:
        entry: dict[str, object] = dataclasses.asdict(recipe) | {"seed": seed, "images": _digest(images.tobytes())}
        if weights_dir is not None:
            path = _weights_path(weights_dir, recipe.width)
            try:
                entry["weights"] = _digest(path.read_bytes())
            except OSError as error:
                raise InputError(f"weights_dir: expected a weight file, found {error.strerror} at {path}") from error
        made_from[recipe.name] = entry | {"versions": versions}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _read_manifest(folder)
        missing = [recipe for recipe in recipes if not _is_kept(folder, recipe.name, made_from[recipe.name], manifest)]
        for width in dict.fromkeys(recipe.width for recipe in missing):
            group = [recipe for recipe in missing if recipe.width == width]
            contents = _contents(group, width, seed, weights_dir, images)
            for recipe in group:
                content = contents[recipe.kind]
                _set_aside(folder / f"{recipe.name}.tflite", manifest.get(recipe.name))
                write_atomically(folder / f"{recipe.name}.tflite", content)
                manifest[recipe.name] = {"made_from": made_from[recipe.name], "sha256": _digest(content)}
            write_json(folder / MANIFEST, manifest, indent=2)
    except OSError as error:
        raise InputError(f"models: expected a folder to write to, found {error.strerror} at {folder}") from error
    return [recipe.name for recipe in missing]


def _set_aside(path: pathlib.Path, entry: object) -> None:
    """Renames a file that isn't one of ours as it was built: it may be somebody's own."""
    if path.is_file():
        digest = _digest(path.read_bytes())
        if not (isinstance(entry, dict) and entry.get("sha256") == digest):
            path.replace(path.with_name(f"{path.name}.{digest[:12]}.old"))


def _contents(
    recipes: list[Recipe], width: float, seed: int, weights_dir: str | None, images: np.ndarray
) -> dict[str, bytes]:
    """The files of one width by number type."""
    from launch.fleet import mobilenet  # h5py and Flax are slow to import: only where something is built

    scaled = images.astype(np.float32) / 127.5 - 1.0
    if weights_dir is None:
        variables = mobilenet.random_variables(width, seed, scaled)
    else:
        try:
            variables = mobilenet.keras_variables(width, _weights_path(weights_dir, width))
        except ValueError as error:
            raise InputError(str(error)) from error
    contents = {"FP32": _converted(mobilenet.lowered(width, variables))}
    if any(recipe.kind == "Int8" for recipe in recipes):
        contents["Int8"] = _quantized(contents["FP32"], scaled)
    return contents
