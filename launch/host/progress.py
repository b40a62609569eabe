"""Progress of long work: a bar with the numbers to watch on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 10.0  # between plain lines


class Progress:
    """Counts units done; safe to advance from several threads."""

    def __init__(self, total: int, done: int, what: str, unit: str = "epoch") -> None:
        self._total, self._done, self._what, self._unit = total, done, what, unit
        self._lock = threading.Lock()
        self._last = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=what, unit=unit, dynamic_ncols=True) if terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, units: int, numbers: str) -> None:
        """Counts `units` more and shows `numbers`."""
        with self._lock:
            self._done += units
            if self._bar is not None:
                self._bar.set_postfix_str(numbers, refresh=False)
                self._bar.update(units)
            elif time.monotonic() - self._last > LINE_SECONDS or self._done == self._total:
                self._last = time.monotonic()
                print(f"{self._what}: {self._done}/{self._total} {self._unit}s, {numbers}", file=sys.stderr, flush=True)
