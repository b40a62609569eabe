"""Certificates for a fleet: `python -m launch.certs --inventory=…` makes an authority and one per node."""

from __future__ import annotations

from absl import flags

from edge_cloud import inventory as inventories
from edge_cloud.inventory import InventoryError
from launch import errors
from launch.errors import InputError
from launch.local_fleet import make_certificates

_INVENTORY = flags.DEFINE_string(
    "inventory", "data/inventories/local.toml", "Inventory (TOML): whose nodes get certificates, and which folder."
)


def main() -> None:
    """Makes what is missing and says where it is."""
    try:
        inventory = inventories.load(_INVENTORY.value)
    except InventoryError as error:
        raise InputError(str(error)) from error
    made = make_certificates(inventory)
    print(f"{inventory.certificates}: made {', '.join(made) if made else 'nothing, all there'}")
    print("Each node needs ca.pem and its own .pem and .key; keep ca.key to yourself.")


if __name__ == "__main__":
    errors.run(main)
