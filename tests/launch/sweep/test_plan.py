"""What a sweep consists of: axes, points and units; and that a mistake anywhere is told before anything runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from absl import flags

from hl_jax import training
from hl_jax.agents.q_learning.config import QLearningConfig
from launch.host.errors import InputError
from launch.host.files import ROOT
from launch.inputs import agents
from launch.inputs.flags import define_agent, given
from launch.sweep import axes, plan, search
from launch.sweep.axes import Axis, Grid
from tests.helpers.builders import SCENARIOS

BASE = {"scenario": str(SCENARIOS / "expC.toml"), "users": "2", "constraint": "85", "agent": "q_learning", "seeds": "3"}


@pytest.fixture(autouse=True)
def base_flags():
    flags.FLAGS.mark_as_parsed()
    with given(BASE):
        yield


def points(**texts: str) -> list[plan.Point]:
    grids = (Grid(tuple(axes.axis(name, text) for name, text in texts.items())),)
    return plan.points(axes.grid_assignments(grids))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,5,10", ("1", "5", "10")),
        ("linear,constant:0, exp", ("linear", "constant:0", "exp")),
        ("constant:1", ("constant:1",)),
        ("0:0.3:0.1", ("0", "0.1", "0.2", "0.3")),  # binary floats would miss the end
        ("1:20:5", ("1", "6", "11", "16")),
        ("5:5:1", ("5",)),
        ("-1:1:1", ("-1", "0", "1")),
        ("1e-3:3e-3:1e-3", ("0.001", "0.002", "0.003")),
        ("log:1e-4:1e-1:4", ("0.0001", "0.001", "0.01", "0.1")),
    ],
)
def test_values_of_an_axis(text, values):
    assert axes.axis("a", text) == Axis("a", values)


def test_intervals_are_for_searching():
    assert axes.axis("a", "0:0.9") == Axis("a", (), 0.0, 0.9)
    assert axes.axis("a", "log:1e-4:1") == Axis("a", (), 1e-4, 1.0, log=True)
    with pytest.raises(InputError, match=r"--a: expected values with --search=grid .* found an interval from 0 to 0.9"):
        axes.grid_assignments((Grid((axes.axis("a", "0:0.9"),)),))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1:0:0.1", "expected LOW:HIGH:STEP with HIGH at least LOW and STEP over 0"),
        ("0:1:0", "expected LOW:HIGH:STEP with HIGH at least LOW and STEP over 0"),
        ("0:1:1e-9", "expected at most 10000 values, found 1000000001"),
        ("1:0", "expected LOW:HIGH with LOW < HIGH"),
        ("log:0:1:3", "expected log:LOW:HIGH with 0 < LOW < HIGH"),
        ("log:1:2:1", "expected log:LOW:HIGH:COUNT with 2 to 10000 values"),
        ("1,2,1", "expected each value once, found '1' more than once"),
        ("1,,2", "expected values"),
        ("", "expected values"),
        ([], "expected values"),
        ([[1]], "expected a text or a number, found"),
    ],
)
def test_axes_that_are_none(value, message):
    with pytest.raises(InputError, match=f"--a: {message}"):
        axes.axis("a", value)


def test_flags_make_axes():
    found = axes.from_flags(["gamma=0,0.5", "--k_best=1:3:1"])
    assert found == (Axis("gamma", ("0", "0.5")), Axis("k_best", ("1", "2", "3")))
    for texts, message in (
        (["gamma"], "expected FLAG=VALUES"),
        (["=1"], "expected FLAG=VALUES"),
        (["gamma=0", "gamma=1"], "expected each flag once, found gamma"),
    ):
        with pytest.raises(InputError, match=f"--grid: {message}"):
            axes.from_flags(texts)


def test_a_sweep_file_holds_grids(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('[flags]\nusers = 3\n[[grid]]\ngamma = [0, 0.5]\n[[grid]]\nagent = ["dqn"]\nepochs = "1:3:1"\n')
    shared, grids = axes.from_file(path)
    assert shared == {"users": "3"}
    both = axes.combined(grids, axes.from_flags(["noise=0,0.1"]))
    assert len(axes.grid_assignments(both)) == 2 * 2 + 3 * 2
    assert axes.grid_assignments(both)[4] == {"agent": "dqn", "epochs": "1", "noise": "0"}
    with pytest.raises(InputError, match="expected a flag that the sweep file doesn't vary, found gamma"):
        axes.combined(grids, axes.from_flags(["gamma=0.1"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[flag]\n", r"expected \[flags\] and \[grid\], found the key 'flag'"),
        ("grid = 3\n", r"expected tables \[flags\]"),
        ("[grid\n", "expected TOML"),
        ("[flags]\nseeds = [1]\n", "expected a text or a number"),
    ],
)
def test_files_that_are_no_sweep(tmp_path, text, message):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        axes.from_file(path)


def test_points_are_what_the_flags_say():
    found = points(step_size="0.3,0.5", constraint="80,Max")
    assert len(found) == 4
    assert [one.settings.config.step_size for one in found] == [0.3, 0.3, 0.5, 0.5]
    assert [one.settings.scenario.constraint for one in found] == [80.0, 89.9, 80.0, 89.9]
    assert all(one.settings.scenario.users == 2 and one.settings.seeds == (0, 1, 2) for one in found)
    # And the flags are as they were.
    assert (flags.FLAGS.step_size, flags.FLAGS.constraint) == (None, "85")
    assert flags.FLAGS["step_size"].present == 0


def test_the_same_training_is_one_unit():
    defaults = QLearningConfig()
    default = points(step_size=f"{defaults.step_size},0.3")
    assert len(plan.all_units(default)) == 6
    # Written otherwise, or by another axis whose value is the default.
    again = points(step_size=f"{defaults.step_size}0,0.3", constraint="85.0")
    again += points(gamma=str(defaults.gamma))
    assert len({one.name for one in default + again}) == 2
    assert len(plan.all_units(default + again)) == 6


def test_agents_of_different_constants_are_one_grid():
    found = points(agent="dqn,q_learning", k_best="5,10", step_size="0.3", gamma="0,0.1")
    both = [{"gamma": "0"}, {"gamma": "0.1"}]
    assert [one.assignment for one in found] == [
        *({"agent": "dqn", "k_best": count, **rest} for count in ("5", "10") for rest in both),
        *({"agent": "q_learning", "step_size": "0.3", **rest} for rest in both),
    ]
    assert [one.settings.config.gamma for one in found] == [0.0, 0.1] * 3


@pytest.mark.parametrize("axis", ["step_size", "users", "noise", "constraint", "lanes"])
def test_other_trainings_have_other_names(axis):
    with given({"lanes": "2" if axis == "lanes" else "1"}):
        (other,) = points(**({"gamma": "0.2"} if axis == "lanes" else {axis: "1" if axis == "users" else "0.1"}))
    (one,) = points(gamma="0.2")
    assert one.name != other.name


def test_units_of_one_program_are_those_of_one_agent_and_one_size():
    """Against what JAX compiles for: the agent itself, and the shapes of the environment's arrays."""
    both = f"{SCENARIOS / 'expA.toml'},{SCENARIOS / 'expD.toml'}"
    found = points(q_penalty="learned", scenario=both, users="2,3", constraint="80,Max", gamma="0,0.1")
    # Both are made for their constraint.
    found += points(agent="q_learning,factored", scenario=both, users="2,3", constraint="80,Max")
    programs: dict[str, list[object]] = {}
    for one in found:
        chosen = one.settings
        agent = agents.make_agent(chosen.agent, chosen.config, chosen.scenario)
        params = training.params_for(agent, chosen.scenario)
        programs.setdefault(one.program, []).append((agent, [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]))
    assert [len(same) for same in programs.values()] == [4] * 4 + [2] * 8
    assert all(same[0] == other for same in programs.values() for other in same)
    firsts = [same[0] for same in programs.values()]
    assert all(one != other for number, one in enumerate(firsts) for other in firsts[:number])


def folders(seeds: int, first: int = 0, lanes: int = 1) -> list[str]:
    with given({"seeds": str(seeds), "first_seed": str(first), "lanes": str(lanes)}):
        return [unit.folder for unit in plan.all_units(points(gamma="0.1,0.2"))]


@pytest.mark.parametrize("lanes", [1, 4])
def test_more_seeds_add_units_and_change_none(lanes):
    few, many = folders(10, lanes=lanes), folders(20, lanes=lanes)
    assert set(few) < set(many)
    assert len(few) == 2 * -(-10 // lanes)
    assert set(folders(10, 10, lanes)) | set(few) == set(many)


def test_units_hold_every_seed_once():
    with given({"seeds": "10", "lanes": "4"}):
        (one,) = points(gamma="0.1")
    assert [unit.settings.seeds for unit in one.units()] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert [unit.folder.split("/")[1] for unit in one.units()] == ["seed-0000-0003", "seed-0004-0007", "seed-0008-0011"]


def test_a_mistake_in_a_grid_of_500_is_told_with_its_place():
    with pytest.raises(InputError, match=r"--gamma: .* found 1.0 \(of the sweep's point epochs=1, gamma=1; nothing"):
        points(epochs="1:5:1", gamma="0:1:0.01")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"gamm": "0"}, r"found gamm \(did you mean gamma\?\)"),
        ({"seeds": "1,2"}, r"found seeds \(give --seeds\)"),
        ({"run_dir": "a,b"}, "found run_dir"),
        ({"step_size": "0.1,x"}, "flag --step_size=x"),
        ({"k_best": "1"}, "--k_best: expected with --agent=hybrid, dqn, factored, found with --agent=q_learning"),
        ({"agent": "hybrid", "k_best": "5,0"}, r"--k_best: expected a value in \[1, 1e\+09\], found 0"),
        (
            {"agent": "sarsa"},
            "--agent: expected one of hybrid, dqn, q_learning, factored, sb3_dqn, or .* found 'sarsa' .of the",
        ),
        (
            {"agent": "dqn,sarsa"},
            "--agent: expected one of hybrid, dqn, q_learning, factored, sb3_dqn, or .* found 'sarsa'",
        ),
        (
            {"agent": "hybrid,dqn", "epoch_steps": "5,6"},
            "--epoch_steps: expected with --agent=q_learning.*, found with",
        ),
        ({"users": "2,6"}, "--users: expected 1 to 5 .* found 6"),
        ({"constraint": "80,95"}, "--constraint: expected Min, Max or a number in .* found '95'"),
        ({"scenario": "nowhere.toml"}, "scenario: expected a readable file, found No such file"),
        ({"states": "1000000000"}, "--states: expected a table of at most 4 GiB"),
    ],
)
def test_mistakes_are_told_before_anything_runs(texts, message):
    with pytest.raises(InputError, match=message):
        points(**texts)


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "sweeps").glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_can_be_run_and_who_is_untold_learns_the_penalty(path):
    shared, grids = axes.from_file(path)
    define_agent(shared["agent"])
    if path.stem.startswith("tuning"):
        searched, tasks = search.split(grids[0].axes)
        assignments = [setting | task for setting in search.random_settings(searched, 3, 0) for task in tasks]
    else:
        assignments = axes.grid_assignments(grids)
    with given(shared):
        found = [one.settings.config for one in plan.points([{"constraint": "85"} | one for one in assignments])]
    for config in found:
        knows = {getattr(config, name) for name in ("q_penalty", "model_penalty") if hasattr(config, name)}
        expected = {"learned"} if path.stem.endswith("untold") else {"known"}
        assert knows == (set() if shared["agent"] == "sb3_dqn" else expected)
