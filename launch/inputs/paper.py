"""The paper's Tables V, VI and VII as data/paper has them. Numbers are as printed; the files say what they mean."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import TypeVar

from launch.host.errors import InputError
from launch.host.files import ROOT
from launch.host.records import from_data

NAMES = {"hybrid": "Ours", "dqn": "AdaDeep", "q_learning": "AutoScale"}  # our agents, as the paper's tables call them
Table = TypeVar("Table")


@dataclasses.dataclass(frozen=True)
class Decided:
    """A row of Table V: five users' decision."""

    experiment: str
    constraint: str | int
    decision: tuple[str, ...]  # [N] labels
    art_ms: float
    accuracy: float  # %
    contradiction: str | None = None  # what the row's own numbers gainsay
    accuracy_of_models: float | None = None  # %, where that isn't the printed one

    @property
    def limit(self) -> str:
        """The constraint as flags write it."""
        return str(self.constraint)


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Table V."""

    source: str
    units: dict[str, str]
    rows: tuple[Decided, ...]


@dataclasses.dataclass(frozen=True)
class Learned:
    """A row of Table VI: real steps until the optimal policy."""

    users: int
    constraint: str | int
    autoscale_steps: int
    adadeep_steps: int
    ours_steps: int

    @property
    def limit(self) -> str:
        """The constraint as flags write it."""
        return str(self.constraint)

    @property
    def steps(self) -> dict[str, int]:
        """By our agents' names."""
        return {"hybrid": self.ours_steps, "dqn": self.adadeep_steps, "q_learning": self.autoscale_steps}


@dataclasses.dataclass(frozen=True)
class SpeedUps:
    """What the text says of Table VI: how many times as many steps as the paper's agent, at most."""

    over_adadeep: float
    over_autoscale: float

    @property
    def over(self) -> dict[str, float]:
        """By our agents' names."""
        return {"dqn": self.over_adadeep, "q_learning": self.over_autoscale}


@dataclasses.dataclass(frozen=True)
class Learning:
    """Table VI."""

    source: str
    units: dict[str, str]
    rows: tuple[Learned, ...]
    claims: SpeedUps


@dataclasses.dataclass(frozen=True)
class Minutes:
    """Times of the three agents, min; None where the table has a dash."""

    autoscale: float | None = None
    adadeep: float | None = None
    ours: float | None = None

    @property
    def of(self) -> dict[str, float | None]:
        """By our agents' names."""
        return {"hybrid": self.ours, "dqn": self.adadeep, "q_learning": self.autoscale}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A row of Table VII: what training took."""

    users: int
    computation: Minutes
    experience: Minutes
    total: Minutes


@dataclasses.dataclass(frozen=True)
class Training:
    """Table VII."""

    source: str
    units: dict[str, str]
    rows: tuple[Trained, ...]
    claims: dict[str, float]


def _table(kind: type[Table], number: int) -> Table:
    path = ROOT / "data" / "paper" / f"table{number}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"table: expected a readable TOML file, found {error} at {path}") from error
    return from_data(kind, data, str(path))


def table5() -> Decisions:
    """Decisions, response times and accuracies of experiments A to D.

    Raises:
      InputError: if the file can't be read or isn't that table.
    """
    return _table(Decisions, 5)


def table6() -> Learning:
    """Steps until the optimal policy.

    Raises:
      InputError: if the file can't be read or isn't that table.
    """
    return _table(Learning, 6)


def table7() -> Training:
    """Training times.

    Raises:
      InputError: if the file can't be read or isn't that table.
    """
    return _table(Training, 7)
