"""The sections of the report by name, in the report's order. A new one is a module beside these, and listed here."""

from __future__ import annotations

from launch.reproduce.sections.changing import Changing
from launch.reproduce.sections.factored import Factored
from launch.reproduce.sections.figure3 import Figure3
from launch.reproduce.sections.knowledge import Knowledge
from launch.reproduce.sections.peer import Peer
from launch.reproduce.sections.section import Section
from launch.reproduce.sections.table5 import Table5
from launch.reproduce.sections.table6 import Table6
from launch.reproduce.sections.table7 import Table7

SHOWN: tuple[type[Section], ...] = (Table5, Table6, Knowledge, Changing, Table7, Figure3, Peer, Factored)
SECTIONS: dict[str, type[Section]] = {kind.name: kind for kind in SHOWN}
