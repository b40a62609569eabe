"""MobileNetV1 (Howard et al. 2017) in Flax, at any width: the eight models of Table III share this definition.

Layer names, padding and batch-norm epsilon are those of Keras' MobileNet, so that its published weight files fit.
Weights are drawn with NumPy from a seed, or read from such a file; batch-norm statistics of drawn weights are
calibrated on images, since without that every output is 0.001.
"""

from __future__ import annotations

import io
import pathlib

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

SIDE = 224  # pixels
CLASSES = 1000
# (filters at width 1, stride) of the thirteen depthwise-separable blocks (Table 1 of Howard et al.).
BLOCKS = (*((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)), *[(512, 1)] * 5, *((1024, 2), (1024, 1)))

Variables = dict[str, dict[str, dict[str, np.ndarray]]]


class MobileNetV1(nn.Module):
    """Images [B, 224, 224, 3] in [-1, 1] to class probabilities [B, 1000]."""

    width: float

    @nn.compact
    def __call__(self, images: jax.Array, calibrate: bool = False) -> jax.Array:
        """Classifies; with `calibrate`, batch-norm uses the batch's own statistics and keeps them."""

        def normalized(x: jax.Array, name: str) -> jax.Array:
            norm = nn.BatchNorm(use_running_average=not calibrate, momentum=0.0, epsilon=1e-3, name=name)
            return jnp.minimum(nn.relu(norm(x)), 6.0)

        def conv(x: jax.Array, filters: int, size: int, stride: int, name: str, groups: int = 1) -> jax.Array:
            # Keras pads a strided convolution at the bottom and right only.
            padding = ((0, 1), (0, 1)) if stride == 2 else "SAME"
            layer = nn.Conv(
                filters,
                (size, size),
                stride,
                padding=padding,
                feature_group_count=groups,
                use_bias=False,
                name=name,
            )
            return normalized(layer(x), f"{name}_bn")

        x = conv(images, int(32 * self.width), 3, 2, "conv1")
        for block, (filters, stride) in enumerate(BLOCKS, start=1):
            x = conv(x, x.shape[-1], 3, stride, f"conv_dw_{block}", groups=x.shape[-1])
            x = conv(x, int(filters * self.width), 1, 1, f"conv_pw_{block}")
        x = jnp.mean(x, axis=(1, 2), keepdims=True)
        x = nn.Conv(CLASSES, (1, 1), name="conv_preds")(x)
        return nn.softmax(x.reshape(x.shape[0], CLASSES))


def _shapes(width: float) -> dict[str, dict[str, dict[str, tuple[int, ...]]]]:
    """Shape of every weight, by collection, layer and name."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    tree = jax.eval_shape(MobileNetV1(width).init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def random_variables(width: float, seed: int, images: np.ndarray) -> Variables:
    """Weights drawn from `seed` (He normal), with batch-norm statistics calibrated on `images` [B, 224, 224, 3].

    The draw is NumPy's, layer by layer in the order of their names, so that the same seed gives the same weights
    wherever they are drawn.
    """
    generator = np.random.default_rng([seed, round(1000 * width)])
    constants = {"bias": 0.0, "mean": 0.0, "scale": 1.0, "var": 1.0}
    variables: Variables = {}
    for collection, layers in sorted(_shapes(width).items()):
        variables[collection] = {}
        for layer, weights in sorted(layers.items()):
            variables[collection][layer] = {}
            for name, shape in sorted(weights.items()):
                value = np.full(shape, constants.get(name, 0.0), np.float32)
                if name == "kernel":
                    deviation = np.sqrt(2.0 / np.prod(shape[:-1]))
                    value = generator.standard_normal(shape, np.float32) * np.float32(deviation)
                variables[collection][layer][name] = value
    model = MobileNetV1(width)

    def calibrated(variables: Variables, images: jax.Array) -> Variables:
        return model.apply(variables, images, calibrate=True, mutable=["batch_stats"])[1]["batch_stats"]

    # In double precision: how a sum is split depends on the machine's cores, and would show in float32's last bits.
    with jax.enable_x64(True):
        double = jax.tree.map(np.float64, variables)
        statistics = jax.jit(calibrated)(double, jnp.asarray(images, jnp.float64))
        variables["batch_stats"] = jax.tree.map(np.float32, statistics)
    return variables


_KERAS_NAMES = {
    "kernel": "kernel",
    "depthwise_kernel": "kernel",
    "bias": "bias",
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "var",
}


def _keras_weights(file: h5py.File) -> dict[tuple[str, str], np.ndarray]:
    """Every weight of a Keras file by layer and our name for it."""
    group = file.get("model_weights", file)
    found = {}

    def visit(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            parts = path.split("/")
            name = parts[-1].split(":")[0]
            if name in _KERAS_NAMES:
                value = np.asarray(item, np.float32)
                if name == "depthwise_kernel":  # [h, w, C, 1] there, [h, w, 1, C] here
                    value = value.transpose(0, 1, 3, 2)
                found[parts[0], _KERAS_NAMES[name]] = value

    group.visititems(visit)
    return found


def keras_variables(width: float, path: pathlib.Path) -> Variables:
    """Weights of a Keras MobileNet file (`mobilenet_1_0_224_tf.h5` and its like).

    Raises:
      ValueError: if the file isn't one, or a weight is missing or has another shape: another width, say.
    """
    try:
        with h5py.File(path, "r") as file:
            found = _keras_weights(file)
    except OSError as error:
        raise ValueError(f"weights: expected a Keras .h5 file, found {error} at {path}") from error
    variables: Variables = {}
    for collection, layers in _shapes(width).items():
        variables[collection] = {}
        for layer, weights in layers.items():
            variables[collection][layer] = {}
            for name, shape in weights.items():
                value = found.get((layer, name))
                if value is None or value.shape != shape:
                    seen = "none" if value is None else f"shape {value.shape}"
                    raise ValueError(f"weights.{layer}.{name}: expected shape {shape}, found {seen} in {path}")
                variables[collection][layer][name] = value
    return variables


def lowered(width: float, variables: Variables) -> bytes:
    """The network with its weights as constants, batch size 1, as StableHLO bytecode.

    Batch size 1, because with a dynamic one LiteRT silently leaves out XNNPACK, its fast path.
    """
    model = MobileNetV1(width)
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    module = jax.jit(lambda images: model.apply(variables, images)).lower(image).compiler_ir("stablehlo")
    code = io.BytesIO()
    assert module is not None
    module.operation.write_bytecode(code)
    return code.getvalue()
