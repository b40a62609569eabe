"""Measuring LiteRT files on this machine, as the command does it."""

from __future__ import annotations

import shutil

import pytest

from launch.fleet import measuring
from launch.host.errors import InputError
from launch.inputs.profile_files import load_profile


@pytest.mark.process  # Python asks `uname` what machine this is
def test_real_files_become_a_profile(command, model_dir, tmp_path):
    (tmp_path / "m").mkdir()
    for name in ("d3", "d7"):
        shutil.copy(model_dir / f"{name}.tflite", tmp_path / "m")
    (tmp_path / "m" / "models.json").write_text("not a model")
    flags = ("--kind=here", "--target=cpu", "--out=here.toml", "--measure=m", "--runs=120", "--warmup=3")
    done = command("profiles", *flags, cwd=tmp_path)
    assert done.status == 0, done.err
    assert "measuring: 2/2 models, d7" in done.err
    (target,) = load_profile(tmp_path / "here.toml").targets
    assert [entry.model for entry in target.entries] == ["d3", "d7"]
    assert target.runtime.endswith(", one thread")
    assert "120 runs after 3" in target.source
    for entry in target.entries:
        assert 0.05 < entry.p50_ms < 1000.0
        assert entry.mean_ms is not None
        assert entry.p90_ms is not None
        assert (entry.p95_ms, entry.p99_ms, entry.energy_mj, entry.top1) == (None,) * 4


def test_every_run_counts_but_the_warm_up(monkeypatch, tmp_path):
    """Of a model whose run numbers are its times: the warm-up's don't count, and no model has another's."""
    (tmp_path / "a.tflite").touch()
    (tmp_path / "b.tflite").touch()
    now = [0.0]

    class Fake:
        def __init__(self, path):
            self.runs = 0

        def classify(self, image):
            assert image.shape == measuring.IMAGE_SHAPE
            self.runs += 1
            now[0] += self.runs / 1000.0

    monkeypatch.setattr(measuring, "Model", Fake)
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    times = measuring.measure(tmp_path, 2, 3)
    assert list(times) == ["a", "b"]
    for found in times.values():
        assert found == pytest.approx([3.0, 4.0, 5.0])


def test_a_file_that_is_no_model_is_one_line(refused, tmp_path):
    (tmp_path / "d0.tflite").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"^model: expected a LiteRT file, found .* at .*d0\.tflite$"):
        measuring.measure(tmp_path, 0, 1)
    said = refused("--kind=x", "--target=y", "--out=z.toml", "--measure=.", name="profiles")
    assert said.startswith("error: model: expected a LiteRT file, found ")
    assert not (tmp_path / "z.toml").exists()
