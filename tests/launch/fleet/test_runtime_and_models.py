"""The models: what Flax computes is what LiteRT computes; deterministic files; Keras weight files; errors."""

from __future__ import annotations

import hashlib
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edge_cloud import messages_pb2 as pb
from edge_cloud.rpc import Refused
from edge_cloud.runtime import Model, load_pool, measure_cpu_ms
from edge_cloud.service import check_reply, classify
from edge_cloud.slots import Pacing, Slots
from launch.fleet import mobilenet, model_files
from launch.fleet.model_files import Recipe
from launch.host.errors import InputError
from tests.helpers.fleets import MODELS, ROOT

POOL = ROOT / "data" / "pools" / "mobilenet.toml"
SMALLEST = [Recipe("d3", 0.25, "FP32"), Recipe("d7", 0.25, "Int8")]
IMAGE = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def variables():
    images = model_files.calibration_images(None, 0).astype(np.float32) / 127.5 - 1.0
    return mobilenet.random_variables(0.25, 0, images)


def scores(model: Model) -> np.ndarray:
    """All 1,000 probabilities of a model's last run."""
    output = model._interpreter.get_tensor(model._output["index"])[0]
    scale, zero = model._output["quantization"]
    return (output.astype(np.float32) - zero) * scale if scale else output


def test_the_pool_is_table_threes():
    recipes = model_files.read_recipes(POOL)
    assert tuple(recipe.name for recipe in recipes) == MODELS
    assert [recipe.width for recipe in recipes] == [1.0, 0.75, 0.5, 0.25] * 2
    assert [recipe.kind for recipe in recipes] == ["FP32"] * 4 + ["Int8"] * 4


def test_macs_are_table_threes(variables):
    """Multiply-accumulates of the network, counted from its kernels, against the pool's column."""
    macs = 0
    side = 112
    strides = iter([stride for _, stride in mobilenet.BLOCKS])
    for layer in ["conv1", *(f"conv_{kind}_{block}" for block in range(1, 14) for kind in ("dw", "pw"))]:
        if layer.startswith("conv_dw"):
            side //= next(strides)
        macs += variables["params"][layer]["kernel"].size * side * side
    macs += variables["params"]["conv_preds"]["kernel"].size
    assert macs / 1e6 == pytest.approx(41.0, abs=0.5)


def test_litert_computes_what_flax_computes(model_dir, variables):
    model = Model(model_dir / "d3.tflite")
    inference = model.classify(IMAGE)
    images = IMAGE[None].astype(np.float32) / 127.5 - 1.0
    expected = np.asarray(mobilenet.MobileNetV1(0.25).apply(variables, images))[0]
    np.testing.assert_allclose(scores(model), expected, rtol=1e-3, atol=1e-6)
    assert list(inference.classes) == np.argsort(expected)[::-1][:5].tolist()
    np.testing.assert_allclose(inference.scores, np.sort(expected)[::-1][:5], rtol=1e-3)


def test_random_weights_tell_images_apart(model_dir):
    """Without calibrated batch-norm statistics every output is 0.001."""
    for model in load_pool(model_dir, MODELS[:4]).values():
        assert model.classify(IMAGE).scores[0] > 0.005
        assert model.classify(IMAGE).classes != model.classify(255 - IMAGE).classes


@pytest.mark.parametrize(("single", "integer"), [("d0", "d4"), ("d1", "d5"), ("d2", "d6"), ("d3", "d7")])
def test_int8_models_are_full_integer_and_close_to_fp32(model_dir, single, integer):
    one, other = Model(model_dir / f"{single}.tflite"), Model(model_dir / f"{integer}.tflite")
    assert other._input["dtype"] == other._output["dtype"] == np.int8
    floats = [detail["name"] for detail in other._interpreter.get_tensor_details() if detail["dtype"] == np.float32]
    assert floats == []
    image = model_files.calibration_images(None, 7)[0]  # like those that set the ranges, but none of them
    one.classify(image)
    other.classify(image)
    assert np.corrcoef(scores(one), scores(other))[0, 1] > 0.7
    assert (model_dir / f"{integer}.tflite").stat().st_size < 0.35 * (model_dir / f"{single}.tflite").stat().st_size


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(model_dir, tmp_path):
    def digests(folder):
        return [hashlib.sha256((folder / f"{name}.tflite").read_bytes()).hexdigest() for name in ("d3", "d7")]

    assert model_files.build(tmp_path / "same", SMALLEST, seed=0) == ["d3", "d7"]
    assert model_files.build(tmp_path / "other", SMALLEST, seed=1) == ["d3", "d7"]
    assert digests(tmp_path / "same") == digests(model_dir)
    assert set(digests(tmp_path / "other")).isdisjoint(digests(model_dir))


def test_what_is_built_is_kept_until_it_is_damaged_or_asked_for_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "_contents", lambda *_: {"FP32": b"whole"})
    only = SMALLEST[:1]
    assert model_files.build(tmp_path, only) == ["d3"]
    assert model_files.build(tmp_path, only) == []
    assert json.loads((tmp_path / "models.json").read_text())["d3"]["made_from"]["seed"] == 0
    (tmp_path / "d3.tflite").write_bytes(b"half")
    assert model_files.build(tmp_path, only) == ["d3"]
    assert [file.read_bytes() for file in tmp_path.glob("d3.tflite.*.old")] == [b"half"]  # it may be somebody's own
    (tmp_path / "models.json").write_text("{")
    assert model_files.build(tmp_path, only) == ["d3"]
    assert model_files.build(tmp_path, only, seed=1) == ["d3"]
    assert model_files.build(tmp_path, only, seed=1) == []


def keras_file(path, variables, skip=""):
    """A weight file as Keras writes them."""
    names = {"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}
    with h5py.File(path, "w") as file:
        for layers in variables.values():
            for layer, weights in layers.items():
                for name, value in weights.items():
                    theirs = names.get(name, "beta" if name == "bias" and layer.endswith("_bn") else name)
                    if layer.startswith("conv_dw") and name == "kernel":
                        theirs, value = "depthwise_kernel", value.transpose(0, 1, 3, 2)
                    if layer != skip:
                        file[f"{layer}/{layer}/{theirs}:0"] = value


def test_keras_weight_files_give_their_network(model_dir, tmp_path, variables):
    keras_file(tmp_path / "mobilenet_2_5_224_tf.h5", variables)
    read = mobilenet.keras_variables(0.25, tmp_path / "mobilenet_2_5_224_tf.h5")
    for ours, theirs in zip(jax.tree.leaves(variables), jax.tree.leaves(read), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model_files.build(tmp_path / "out", SMALLEST[:1], weights_dir=str(tmp_path)) == ["d3"]
    # The same weights, whether drawn or read.
    assert (tmp_path / "out" / "d3.tflite").read_bytes() == (model_dir / "d3.tflite").read_bytes()


def test_keras_files_that_do_not_fit_are_told(tmp_path, variables):
    with pytest.raises(InputError, match="weights_dir: expected a weight file, found No such file"):
        model_files.build(tmp_path / "out", SMALLEST, weights_dir=str(tmp_path))
    path = tmp_path / "mobilenet_2_5_224_tf.h5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"weights: expected a Keras .h5 file"):
        model_files.build(tmp_path / "out", SMALLEST, weights_dir=str(tmp_path))
    keras_file(path, variables, skip="conv_preds")
    with pytest.raises(InputError, match=r"weights.conv_preds.\w+: expected shape .*, found none"):
        model_files.build(tmp_path / "out", SMALLEST, weights_dir=str(tmp_path))
    keras_file(tmp_path / "mobilenet_5_0_224_tf.h5", variables)
    with pytest.raises(InputError, match=r"expected shape .*, found shape"):
        model_files.build(tmp_path / "out", [Recipe("d2", 0.5, "FP32")], weights_dir=str(tmp_path))
    with pytest.raises(InputError, match=r"expected a width of 1, 0.75, 0.5, 0.25, found 0.35"):
        model_files.build(tmp_path / "out", [Recipe("x", 0.35, "FP32")], weights_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"FP32"', '"FP16"', r"models\[0\].type: expected FP32 or Int8, found 'FP16'"),
        ("1.0 MobileNetV1-224", "1.0 ResNet", r"models\[0\].description: expected 'W MobileNetV1-224'"),
        ("1.0 MobileNetV1-224", "wide MobileNetV1-224", r"models\[0\].description: expected 'W MobileNetV1-224'"),
        ("[[models]]", "[[odd]]", "pool: expected TOML with"),
    ],
)
def test_pools_of_other_networks_are_told(tmp_path, old, new, message):
    path = tmp_path / "pool.toml"
    path.write_text(POOL.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        model_files.read_recipes(path)


def test_calibration_images_are_checked(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 224, 224, 3), np.float32))
    with pytest.raises(InputError, match=r"calibration_images: expected uint8 \[n, 224, 224, 3\], found float32"):
        model_files.calibration_images(str(tmp_path / "images.npy"), 0)
    with pytest.raises(InputError, match=r"expected an .npy file"):
        model_files.calibration_images(str(tmp_path / "nothing.npy"), 0)
    np.save(tmp_path / "images.npy", np.zeros((2, 224, 224, 3), np.uint8))
    assert model_files.calibration_images(str(tmp_path / "images.npy"), 0).shape == (2, 224, 224, 3)


def test_files_that_are_no_models_are_told(tmp_path):
    (tmp_path / "d0.tflite").write_bytes(b"no model")
    with pytest.raises(ValueError, match="model: expected a LiteRT file"):
        Model(tmp_path / "d0.tflite")
    with pytest.raises(ValueError, match="model: expected a LiteRT file"):
        load_pool(tmp_path, ("d1",))


IMAGES = (1, 224, 224, 3)


def tflite(path, function, shape=IMAGES, dtype=np.float32):
    """A LiteRT file of a function of an image, by the way that our models take."""
    lowered = jax.jit(function).lower(jax.ShapeDtypeStruct(shape, dtype))
    path.write_bytes(model_files._converted(str(lowered.compiler_ir("stablehlo")).encode()))
    return path


def scored(count, low=0.0):
    """Scores of `count` classes that grow with their number, and with how bright the image is."""
    return lambda image: low + jnp.mean(image.astype(jnp.float32)) * 1e-3 + jnp.arange(count, dtype=jnp.float32)[None]


@pytest.mark.parametrize(
    ("function", "dtype", "classes"),
    [
        (scored(2), np.float32, (1, 0)),
        (scored(1001), np.float32, (1000, 999, 998, 997, 996)),
        (scored(7, low=-9.0), np.float32, (6, 5, 4, 3, 2)),  # logits
        (scored(10), np.uint8, (9, 8, 7, 6, 5)),
        (lambda image: scored(10)(image).reshape(1, 1, 1, 10), np.float32, (9, 8, 7, 6, 5)),
    ],
    ids=["two classes", "1,001 classes", "logits", "uint8 input", "four dimensions"],
)
def test_models_of_ones_own_are_served(tmp_path, function, dtype, classes):
    model = Model(tflite(tmp_path / "own.tflite", function, dtype=dtype))
    found = model.classify(IMAGE)
    assert found.classes == classes
    assert np.isfinite(found.scores).all()
    request = pb.ClassifyRequest(step=1, model="own")
    reply = pb.ClassifyReply(step=1, model="own", classes=found.classes, scores=found.scores)
    assert check_reply(request, reply) == ""  # at edge and cloud as on the device


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (
            lambda image: (scored(3)(image), scored(4)(image)),
            (1, 224, 224, 3),
            r"model outputs: expected one output, found 2",
        ),
        (scored(3), (1, 160, 160, 3), r"model input: expected shape \(1, 224, 224, 3\), found \(1, 160, 160, 3\)"),
        (scored(3), (2, 224, 224, 3), r"model input: expected shape \(1, 224, 224, 3\), found \(2,"),
        (scored(1), IMAGES, r"model output: expected shape \(1, C\) of at least two classes, found \(1, 1\)"),
        (lambda image: image[:, ::32, ::32, 0], IMAGES, r"model output: expected shape .* found \(1, 7, 7\)"),
        (
            lambda image: jnp.zeros((1, 4), jnp.int32) + image[:, 0, 0, :1].astype(jnp.int32),
            (1, 224, 224, 3),
            "found int32",
        ),
    ],
    ids=["two outputs", "160 pixels", "two images", "one class", "a picture", "whole numbers"],
)
def test_models_that_are_none_are_told_when_they_are_read(tmp_path, function, shape, expected):
    path = tflite(tmp_path / "own.tflite", function, shape)
    with pytest.raises(ValueError, match=expected) as error:
        Model(path)
    assert str(error.value).endswith(f"in {path}")
    assert "\n" not in str(error.value)


@pytest.mark.clock
def test_a_model_that_gives_no_finite_scores_is_told(tmp_path):
    """Of every image: when it is read. Of some: by whoever asked, wherever it ran."""
    always = tflite(tmp_path / "always.tflite", lambda image: jnp.log(-1.0 - jnp.abs(image[:, 0, 0, :2])))
    with pytest.raises(ValueError, match=r"expected finite scores, found \[nan, nan\] of tensor .*always"):
        load_pool(tmp_path, ("always",))
    assert always.exists()
    tflite(tmp_path / "bright.tflite", lambda image: jnp.log(0.5 - image[:, 0, 0, :2]))
    pool = load_pool(tmp_path, ("bright",))
    slots = Slots(lambda: pool, 1, Pacing(), 4)
    try:
        fine = np.zeros((224, 224, 3), np.uint8)
        request = pb.ClassifyRequest(step=1, model="bright", image=fine.tobytes())
        assert check_reply(request, classify(slots, "edge", request, 10.0)) == ""
        bright = pb.ClassifyRequest(step=2, model="bright", image=(fine + 255).tobytes())
        with pytest.raises(Refused, match="model output: expected finite scores, found"):
            classify(slots, "edge", bright, 10.0)
        assert check_reply(request, classify(slots, "edge", request, 10.0)) == ""
    finally:
        slots.close()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"classes": [], "scores": []}, "expected 1 to 5 classes"),
        ({"classes": range(6), "scores": [0.0] * 6}, "expected 1 to 5 classes"),
        ({"scores": [0.5]}, "expected 1 to 5 classes with scores, found 2 and 1"),
        ({"classes": [-1, 2]}, "expected distinct classes from 0 on"),
        ({"classes": [2, 2]}, "expected distinct classes from 0 on"),
        ({"scores": [0.5, float("nan")]}, "expected finite scores and times"),
        ({"queue_ms": -1.0}, "expected finite scores and times"),
        ({"compute_ms": float("inf")}, "expected finite scores and times"),
    ],
)
def test_replies_are_checked(change, wrong):
    values = {"step": 1, "model": "own", "classes": [4, 2], "scores": [-0.5, -3.0]} | change
    assert check_reply(pb.ClassifyRequest(step=1, model="own"), pb.ClassifyReply(**values)).startswith(wrong)
    assert bool(check_reply(pb.ClassifyRequest(step=1, model="own"), pb.ClassifyReply(**values))) == bool(wrong)


def test_cpu_times_grow_with_the_network(model_dir):
    times = measure_cpu_ms(load_pool(model_dir, MODELS), repeats=5)
    for wide, narrow in zip((0, 1, 2, 4, 5, 6), (1, 2, 3, 5, 6, 7), strict=True):
        assert times[f"d{wide}"] > times[f"d{narrow}"]
