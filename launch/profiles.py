"""Profiles of kinds of machines: shows those that come along, and makes one's own. `python -m launch.profiles`.

From a table (--from_csv), from logs of TensorFlow Lite's benchmark_model (--from_benchmark), or by measuring LiteRT
files on this machine (--measure). Times are ms.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable

from absl import flags

from hl_jax.profiles import Entry, Profile, Target, measured_entry
from launch.host import errors, provenance
from launch.host.errors import InputError
from launch.host.text import counted
from launch.inputs import profile_files, profile_imports

_SHOW = flags.DEFINE_string("show", None, "A profile to show; by default all in data/profiles.")
_KIND = flags.DEFINE_string("kind", None, "The kind of machine that was measured, as a fleet will name it.")
_TARGET = flags.DEFINE_string("target", None, "What ran the models on it: cpu, gpu, cpu-600mhz, …")
_OUT = flags.DEFINE_string("out", None, "The profile's file, *.toml; one that is there is kept unless --add.")
_ADD = flags.DEFINE_bool("add", False, "Adds the target to the file --out, which is there and is of this kind.")
_CSV = flags.DEFINE_string("from_csv", None, "A table with a row for each model; its columns are in docs/profiles.md.")
_SYSTEM = flags.DEFINE_string("system", None, "Which rows of the table: those with this in its column system.")
_BENCHMARK = flags.DEFINE_string("from_benchmark", None, "Logs of benchmark_model: d0=log0.txt,d3=log3.txt.")
_MEASURE = flags.DEFINE_string("measure", None, "A folder of LiteRT files to measure here (python -m launch.models).")
_RUNS = flags.DEFINE_integer(
    "runs",
    1000,
    "Inferences of each measured model. 10 of them must lie beyond a quantile: p90 asks for 100, p99 for 1,000, p99.9 "
    "for 10,000.",
    lower_bound=1,
    upper_bound=10**7,
)
_WARMUP = flags.DEFINE_integer("warmup", 50, "Inferences of each model before these.", lower_bound=0, upper_bound=10**7)
_RUNTIME = flags.DEFINE_string("runtime", None, "What runs the models on the target; by default what is known of it.")
_SOURCE = flags.DEFINE_string("source", None, "Where the figures are from; by default what the files say.")
_ABOUT = flags.DEFINE_string("about", None, "What the machine is, for a new file.")

HEADER = ("kind", "target", "model", "p50 ms", "p90/p50", "p99/p50", "mJ", "top-1 %")


def _row(profile: Profile, target: Target, entry: Entry) -> tuple[str, ...]:
    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    tails = [None if value is None else value / entry.p50_ms for value in (entry.p90_ms, entry.p99_ms)]
    figures = (cell(entry.p50_ms, ".2f"), *(cell(tail, ".2f") for tail in tails))
    return (profile.kind, target.name, entry.model, *figures, cell(entry.energy_mj, ".1f"), cell(entry.top1, ".1f"))


def table(profiles: list[Profile]) -> str:
    """Rows of profiles under one another, texts to the left and numbers to the right."""
    rows = [_row(one, target, entry) for one in profiles for target in one.targets for entry in target.entries]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 3 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (HEADER, *rows)
    )


@dataclasses.dataclass(frozen=True)
class Imported:
    """What was measured, and what is known of how."""

    entries: tuple[Entry, ...]
    runtime: str
    source: str


def _measured(folder: str) -> Imported:
    try:
        from launch.fleet import measuring  # here: a profile can be shown where no runtime is installed
    except ImportError as error:
        raise InputError(f"measure: expected the packages of requirements-node.txt, found no {error.name}") from error
    times = measuring.measure(pathlib.Path(folder), _WARMUP.value, _RUNS.value)
    source = f"python -m launch.profiles --measure, {_RUNS.value} runs after {_WARMUP.value}, {provenance.machine()}"
    entries = tuple(measured_entry(model, of_model) for model, of_model in times.items())
    return Imported(entries, measuring.runtime_name(), source)


def _from_benchmark(text: str) -> Imported:
    files = profile_imports.benchmark_files(text)
    entries = tuple(profile_imports.from_benchmark(path, model) for model, path in files.items())
    return Imported(entries, "TensorFlow Lite", f"benchmark_model, {', '.join(path.name for path in files.values())}")


def _from_csv(path: str) -> Imported:
    table = profile_imports.from_csv(pathlib.Path(path), _SYSTEM.value)
    return Imported(table.entries, "", table.source)


IMPORTS: dict[str, Callable[[str], Imported]] = {
    "from_csv": _from_csv,
    "from_benchmark": _from_benchmark,
    "measure": _measured,
}


def _required(flag: flags.FlagHolder[str | None], beside: str) -> str:
    if not flag.value:
        raise InputError(f"{flag.name}: expected a value beside --{beside}, found none")
    return flag.value


def _earlier(out: pathlib.Path, kind: str, target: str) -> Profile | None:
    """The profile that the target is added to; None for a new file. Asked before anything is measured."""
    if not _ADD.value:
        if os.path.lexists(out):
            raise InputError(f"out: expected a new file, or --add, found one at {str(out)!r}; it is kept")
        return None
    earlier = profile_files.load_profile(out)
    if earlier.kind != kind:
        raise InputError(f"kind: expected {earlier.kind}, which {out} is of, found {kind!r}")
    if target in [one.name for one in earlier.targets]:
        raise InputError(f"target: expected one that isn't in {out} yet, found {target!r}")
    if _ABOUT.value is not None:
        raise InputError(f"about: expected none beside --add, since {out} has its own, found {_ABOUT.value!r}")
    return earlier


def _import(chosen: str, value: str) -> None:
    kind, name, path = (_required(flag, chosen) for flag in (_KIND, _TARGET, _OUT))
    if _SYSTEM.value is not None and chosen != "from_csv":
        raise InputError(f"system: expected --from_csv beside it, found --{chosen}")
    out = pathlib.Path(path)
    if out.suffix != ".toml":
        raise InputError(f"out: expected a file *.toml, found {path!r}")
    earlier = _earlier(out, kind, name)
    try:
        read = IMPORTS[chosen](value)
        runtime = read.runtime if _RUNTIME.value is None else _RUNTIME.value
        target = Target(name, read.entries, runtime, read.source if _SOURCE.value is None else _SOURCE.value)
        if earlier is None:
            profile = Profile(kind, (target,), _ABOUT.value or "")
        else:
            profile = dataclasses.replace(earlier, targets=(*earlier.targets, target))
        profile_files.save_profile(out, profile)
    except ValueError as error:
        raise InputError(str(error)) from error
    print(table([dataclasses.replace(profile, targets=(target,))]))
    print(f"{out}: {profile.kind}, {counted(len(profile.targets), 'target')}")


def main() -> None:
    """Imports what is given, or shows what is there."""
    chosen = {flag.name: flag.value for flag in (_CSV, _BENCHMARK, _MEASURE, _SHOW) if flag.value is not None}
    imports = ", ".join(f"--{name}" for name in IMPORTS)
    if len(chosen) > 1:
        found = " and ".join(f"--{name}" for name in chosen)
        raise InputError(f"flags: expected one of {imports}, --show, found {found}")
    if chosen and _SHOW.value is None:
        ((name, value),) = chosen.items()
        _import(name, value)
        return
    for flag in (_KIND, _TARGET, _OUT, _SYSTEM, _RUNTIME, _SOURCE, _ABOUT, _ADD):
        if flag.value:
            raise InputError(f"{flag.name}: expected it beside one of {imports}, found none of them")
    paths = [pathlib.Path(_SHOW.value)] if _SHOW.value is not None else profile_files.shipped_profiles()
    print(table([profile_files.load_profile(path) for path in paths]))


if __name__ == "__main__":
    errors.run(main)
