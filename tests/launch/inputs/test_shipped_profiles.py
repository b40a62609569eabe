"""The profiles that come along: figures typed by hand, sources, and what is drawn against what was measured."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from hl_jax.profiles import draw, mean_factor
from launch.host.files import ROOT
from launch.inputs.profile_files import as_toml, load_profile, shipped_profiles

pytestmark = pytest.mark.smoke

PROFILES = {profile.kind: profile for profile in map(load_profile, shipped_profiles())}
ROWS = [
    (profile, target, entry) for profile in PROFILES.values() for target in profile.targets for entry in target.entries
]
POOL = tuple(f"d{index}" for index in range(8))
DRAWS = 20_000

# Typed off the submitters' published results: kind, target, model, p50, mean, p90, p99 (ms), mJ, top-1 (%).
PUBLISHED = [
    ("raspberry-pi-4", "tflite-1.15", "d0", 376.5546, 378.0085, None, 415.979, None, 71.676),
    ("raspberry-pi-4", "armnn-19.08", "d3", 17.969, 19.0232, None, 29.9215, None, 51.848),
    ("raspberry-pi-4", "tflite-2.4-fan", "d7", 5.0102, 5.478, 5.6233, 16.7357, 37.97, 50.242),
    ("rk3399", "gpu-armnn-19.08", "d0", 101.4382, 102.1571, 103.3745, 108.9276, None, 71.676),
    ("rk3399", "tflite-1.15", "d4", 39.5845, 44.5828, 56.3261, 117.283, None, 70.762),
    ("hikey960", "armnn-19.08", "d3", 21.6456, 32.1852, None, 130.0828, None, 51.848),
    ("mate-10-pro", "tflite-1.13", "d4", 41.8281, 50.496, None, 138.3193, None, None),
    ("jetson-xavier", "tflite-2.4", "d0", 12.1812, 13.3437, 15.3145, 26.2937, 343.91, 71.676),
    ("jetson-orin", "tflite", "d4", 2.4924, 2.6157, 2.5366, 2.798, 83.78, 70.774),
    ("jetson-orin", "armnn-22.11", "d1", 3.8097, 4.398, 5.5021, 6.4562, 126.42, 69.262),
    ("aws-a1-2xlarge", "armnn-22.11", "d4", 11.6686, 11.6866, 11.7261, 11.7963, None, 70.764),
    ("aws-a1-2xlarge", "tflite", "d0", 86.539, 86.549, 86.7223, 86.9043, None, 71.678),
    ("aws-m7g-2xlarge", "tflite", "d7", 0.4604, 0.4623, 0.4693, 0.4798, None, 50.244),
    ("aws-c5-4xlarge", "tflite", "d4", 6.866, 6.4621, 6.8831, 6.9399, None, 70.762),
    ("amd-zen4", "tflite", "d7", 0.5775, 0.6133, 0.5898, 1.7595, None, 50.238),
]


@pytest.mark.parametrize(("kind", "target", "model", "p50", "mean", "p90", "p99", "energy", "top1"), PUBLISHED)
def test_figures_are_the_published_ones(kind, target, model, p50, mean, p90, p99, energy, top1):
    entry = PROFILES[kind].entry(target, model)
    assert (entry.p50_ms, entry.mean_ms, entry.p99_ms, entry.energy_mj) == (p50, mean, p99, energy)
    assert p90 in (None, entry.p90_ms)
    assert top1 in (None, entry.top1)


def test_which_machines_there_are():
    targets = {kind: len(profile.targets) for kind, profile in PROFILES.items()}
    assert targets == {
        "amd-zen4": 1,
        "aws-a1-2xlarge": 2,
        "aws-c5-4xlarge": 1,
        "aws-m7g-2xlarge": 1,
        "hikey960": 3,
        "jetson-orin": 2,
        "jetson-xavier": 2,
        "mate-10-pro": 1,
        "raspberry-pi-4": 4,
        "rk3399": 4,
    }
    assert len(ROWS) == 137
    assert {entry.model for _, _, entry in ROWS} == set(POOL)
    for path, profile in zip(shipped_profiles(), PROFILES.values(), strict=True):
        assert path.stem == profile.kind


def test_every_row_names_its_source():
    systems = [target.source for profile in PROFILES.values() for target in profile.targets]
    assert len(set(systems)) == len(systems)  # no system twice
    powers = {source.partition("; power: ")[2] for source in systems} - {""}
    assert len(powers) == 2  # a CPU's and a GPU's, of the one kind whose energy nobody measured
    assert all(power.startswith("AnandTech, ") for power in powers)
    for source in (one.partition("; power: ")[0] for one in systems):
        assert re.fullmatch(r"mlcommons/inference_results_v(0\.5|1\.0|3\.0), [\w.-]+", source)
        assert not re.search("t2.medium|m1", source)
    for profile in PROFILES.values():
        assert "Apache-2.0" in profile.source
        assert "figures only" in profile.source
        assert profile.about


def test_files_are_as_they_are_written():
    for path in shipped_profiles():
        assert path.read_text(encoding="utf-8") == as_toml(load_profile(path))


def test_what_the_guide_says_of_speeds():
    """Int8 against FP32 at the same width: the guide's two extremes."""
    ratios = [
        target.entry(f"d{index + 4}").p50_ms / target.entry(f"d{index}").p50_ms
        for profile in PROFILES.values()
        for target in profile.targets
        for index in range(4)
        if {f"d{index}", f"d{index + 4}"} <= {entry.model for entry in target.entries}
    ]
    assert (round(min(ratios), 2), round(max(ratios), 2)) == (0.07, 1.67)
    assert "0.07 to 1.67" in (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")


def test_laws_have_the_measured_quantiles_and_means():
    for profile, target, entry in ROWS:
        curve = profile.curve(target.name, entry.model)
        found = entry.p50_ms * np.interp([0.5, 0.9, 0.95, 0.99, 0.999], *curve)
        measured = [entry.p50_ms, entry.p90_ms, entry.p95_ms, entry.p99_ms, entry.p999_ms]
        np.testing.assert_allclose(found, measured, rtol=1e-12)
        assert entry.p50_ms * mean_factor(curve) == pytest.approx(entry.mean_ms, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_simulated_tails_are_the_measured_ones(seed):
    """The bar: p90 within 5 % and p99 within 15 % in at least 95 % of all rows, of 20,000 draws each."""
    close = {"p90": 0, "p99": 0}
    keys = jax.random.split(jax.random.key(seed), len(ROWS))
    for key, (profile, target, entry) in zip(keys, ROWS, strict=True):
        drawn = np.asarray(draw(key, *profile.curve(target.name, entry.model), (DRAWS,)))
        p90, p99 = entry.p50_ms * np.quantile(drawn, [0.9, 0.99])
        close["p90"] += abs(p90 / entry.p90_ms - 1.0) <= 0.05
        close["p99"] += abs(p99 / entry.p99_ms - 1.0) <= 0.15
    assert min(close.values()) >= 0.95 * len(ROWS), close
