"""A report of made-up units with every part, shared by the tests of the report and of its sections."""

from __future__ import annotations

import json

import pytest

from launch.reproduce import report
from tests.helpers import fake_reproduction as fake


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """A report with every part: (report, folder). Three seeds a unit."""
    out = tmp_path_factory.mktemp("reproduction")
    undecided = fake.seed_entry(
        fake.MIN, 1, None, art_ms=80.0, accuracy=74.88, decision=("d6/L", "d7/L", "d7/L", "d7/L", "d7/L")
    )
    fake.write_unit(out, fake.MIN, [fake.seed_entry(fake.MIN, 0, 1000), undecided, fake.seed_entry(fake.MIN, 2, 1200)])
    fake.write_units(out, [fake.MAX], lambda _, seed: (8000, 6000, 7000)[seed])
    fake.write_units(out, [fake.THREE["hybrid"]], lambda _, seed: (1000, 3000, 2000)[seed])
    fake.write_units(out, [fake.THREE["dqn"]], lambda _, seed: (8000, 8000, 9000)[seed])
    fake.write_units(out, [fake.THREE["q_learning"]], lambda _, seed: (4000, None, None)[seed])
    fake.write_units(out, [fake.PEER], lambda _, seed: (9000, None, 7000)[seed])
    fake.write_units(out, [fake.BESIDE], lambda _, seed: (8000, 8000, 9000)[seed])
    made = fake.build([fake.MIN, fake.MAX, *fake.THREE.values(), fake.PEER, fake.BESIDE], out)
    report.write(made, out)
    return made, out


@pytest.fixture(scope="session")
def numbers(full):
    """That report's report.json."""
    _, out = full
    return json.loads((out / "report.json").read_text(encoding="utf-8"))
