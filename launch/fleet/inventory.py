"""A fleet's inventory, from a file or from a run's settings; what can't be used ends with one line."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from edge_cloud import inventory as inventories
from edge_cloud.client import Fleet
from edge_cloud.inventory import Inventory as Inventory
from edge_cloud.inventory import InventoryError, split_address
from launch.host.errors import InputError
from launch.host.locks import described


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except InventoryError as error:
        raise InputError(str(error)) from error


def read_inventory(path: str) -> Inventory:
    """The fleet of an inventory file.

    Raises:
      InputError: where it can't be used.
    """
    with _told():
        return inventories.load(path)


def inventory_from(data: dict[str, object]) -> Inventory:
    """A fleet from the plain data of its inventory.

    Raises:
      InputError: where it can't be used.
    """
    with _told():
        return inventories.from_data(data)


def connected(inventory: Inventory) -> Fleet:
    """The operator's side of a running fleet.

    Raises:
      InputError: if there is no operator's certificate that can be used.
    """
    try:
        return Fleet(inventory, name=described())
    except ValueError as error:
        raise InputError(str(error)) from error


def starts_here(inventory: Inventory) -> bool:
    """Whether the fleet is to be started on this machine (a port is 0), not one that runs already."""
    return any(split_address(node.address)[1] == 0 for node in inventory.nodes)


def with_faults(inventory: Inventory) -> Inventory:
    """The same fleet with a relay on every link, on which faults can be played; it must be emulated."""
    assert inventory.emulation is not None
    return dataclasses.replace(inventory, emulation=dataclasses.replace(inventory.emulation, faults=True))
