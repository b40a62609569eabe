"""The paper's tables as records: by our agents' names, and a file that isn't one is named."""

from __future__ import annotations

import pytest

from launch.host.errors import InputError
from launch.inputs import paper


def test_numbers_are_by_our_agents_names():
    learned = next(row for row in paper.table6().rows if (row.users, row.limit) == (5, "Min"))
    assert learned.steps == {"hybrid": 6_000, "dqn": 60_000, "q_learning": 1_000_000}
    assert paper.table6().claims.over == {"dqn": 11.6, "q_learning": 166.6}
    trained = next(row for row in paper.table7().rows if row.users == 3)
    assert trained.computation.of == {"hybrid": 1.0, "dqn": 1.0, "q_learning": None}  # printed as a dash
    decided = next(row for row in paper.table5().rows if (row.experiment, row.limit) == ("B", "80"))
    assert (decided.accuracy, decided.accuracy_of_models) == (83.23, 81.40)
    assert set(paper.NAMES) == set(learned.steps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "table: expected a readable TOML file, found .* at .*table7"),
        ("rows = ", "table: expected a readable TOML file, found .* at .*table7"),
        ('source = ""\nrows = []\n[units]\n', r"table7\.toml: object missing required field `claims`"),
        ('source = ""\nrows = []\n[units]\n[claims]\nmost = "x"', r"table7\.toml: expected `float`, found `str`"),
        ('source = ""\nrows = []\nmore = 1\n[units]\n[claims]', r"table7\.toml: .*unknown one at `\.more`"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(paper, "ROOT", tmp_path)
    if text is not None:
        (tmp_path / "data" / "paper").mkdir(parents=True)
        (tmp_path / "data" / "paper" / "table7.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        paper.table7()
