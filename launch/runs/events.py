"""TensorBoard events of a run."""

from __future__ import annotations

import pathlib

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from launch.host.files import replacing
from launch.runs.history import SHOWN, Histories


def write(path: pathlib.Path, histories: Histories) -> None:
    """Events in `path`, one run a seed, against real steps; their clock is the experience time, from 0.

    Record by record: tensorboardX's own writer has a thread that a full disk ends, and then waits for it for ever.
    """
    for seed, rows in histories.items():
        file = path / f"seed-{seed}" / "events.out.tfevents.0"
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            writer = RecordWriter(str(temporary))
            try:
                writer.write(Event(file_version="brain.Event:2").SerializeToString())
                clock_s = 0.0
                for row in rows:
                    clock_s += row.experience_s
                    shown = {name: getattr(row, name) for name in SHOWN}
                    scalars = {f"run/{name}": float(value) for name, value in shown.items() if value is not None}
                    scalars |= {f"learning/{name}": value for name, value in row.learning.items()}
                    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
                    event = Event(wall_time=clock_s, step=row.real_steps, summary=Summary(value=values))
                    writer.write(event.SerializeToString())
            finally:
                writer.close()
