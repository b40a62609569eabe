"""A test that starts a process or depends on the clock without saying so is found; what belongs together is grouped."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.helpers import marks
from tests.helpers.imports import ROOT

pytest_plugins = ["pytester"]
HERE = str(ROOT / "tests" / "planted.py")


@pytest.fixture(autouse=True)
def _what_is_planted_counts_for_no_test(request: pytest.FixtureRequest) -> None:
    request.node.add_marker(pytest.mark.process)  # after the tests were chosen: `make check` runs these, too
    request.node.add_marker(pytest.mark.clock)


BODIES = {
    "Popen": ("import subprocess\nsubprocess.run(['true'], check=True)", "process", "Popen.__init__"),
    "spawn": (
        "import multiprocessing\none = multiprocessing.get_context('spawn').Process(target=print)\n"
        "one.start()\none.join()\none.close()",
        "process",
        "BaseProcess.start",
    ),
    "system": ("import os\nos.system('true')", "process", "os.system"),
    "sleep": ("import time\ntime.sleep(0.0)", "clock", "time.sleep"),
    "monotonic": ("import time\ntime.monotonic()", "clock", "time.monotonic"),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("marked", [False, True])
def test_a_test_that_does_not_say_so_fails(pytester, name, marked):
    body, marker, what = BODIES[name]
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    code = f"def planted():\n{lines}\n"
    mark = f"@pytest.mark.{marker}\n" if marked else ""
    pytester.makepyfile(
        f"import pytest\nscope = {{}}\nexec(compile({code!r}, {HERE!r}, 'exec'), scope)\n"
        f"{mark}def test_one():\n    scope['planted']()\n"
    )
    pytester.makeini("[pytest]\nmarkers =\n    process\n    clock\n")
    result = pytester.runpytest_inprocess("-p", "no:xdist", plugins=[marks])
    result.assert_outcomes(passed=int(marked), failed=int(not marked))
    if not marked:
        result.stdout.fnmatch_lines([f"*expected @pytest.mark.{marker}, found a test that calls {what} in *"])


def test_who_starts_a_process_may_wait_for_it(pytester):
    code = f"exec(compile('import time\\ntime.sleep(0.0)', {HERE!r}, 'exec'))"
    pytester.makepyfile(f"import pytest\n@pytest.mark.process\ndef test_one():\n    {code}\n")
    pytester.makeini("[pytest]\nmarkers =\n    process\n    clock\n")
    pytester.runpytest_inprocess("-p", "no:xdist", plugins=[marks]).assert_outcomes(passed=1)


def test_what_a_fixture_does_counts(pytester):
    pytester.makepyfile(
        "import subprocess\nimport pytest\n"
        "@pytest.fixture\ndef there():\n    subprocess.run(['true'], check=True)\n"
        "def test_one(there):\n    pass\n"
        "def test_two():\n    pass\n"
    )
    result = pytester.runpytest_inprocess("-p", "no:xdist", plugins=[marks])
    result.assert_outcomes(passed=1, failed=1)


def test_others_may_look_at_the_clock():
    """Libraries and pytest itself do, and trainings note how long they took."""
    marks._seen.clear()
    for file in (os.__file__, str(ROOT / "launch" / "train.py")):
        exec(compile("import time\ntime.monotonic()", file, "exec"), {})
    assert marks._seen == {}
    time.monotonic()
    assert marks._seen.keys() == {"clock"}


def test_groups(pytester):
    items = pytester.getitems(
        "import pytest\n"
        "@pytest.mark.process\ndef test_a(): pass\n"
        "def test_b(): pass\n"
        "@pytest.mark.process\n@pytest.mark.clock\ndef test_c(): pass\n"
        "@pytest.mark.clock\ndef test_d(): pass\n"
    )
    marks.group(items)
    groups = [[mark.args[0] for mark in item.iter_markers("xdist_group")] for item in items]
    assert [item.name for item in items] == ["test_c", "test_d", "test_b", "test_a"]
    assert groups == [["clock"], ["clock"], ["test_groups.py"], []]


@pytest.mark.process
def test_the_whole_suite_is_watched(tmp_path):
    """The hooks are the ones that pytest finds in the tests' own conftest.py."""
    planted = tmp_path / "test_planted.py"
    planted.write_text("import subprocess\n\ndef test_one():\n    subprocess.run(['true'], check=True)\n")
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        "pyproject.toml",
    ]
    done = subprocess.run(
        [*line, "--rootdir=.", str(planted)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert "expected @pytest.mark.process, found a test that calls Popen.__init__" in done.stdout
