"""Certificates for a fleet: `python -m launch.certs --inventory=…` makes an authority and one per node."""

from __future__ import annotations

from absl import flags

from launch.fleet.inventory import read_inventory
from launch.fleet.testbed import make_certificates
from launch.host import errors

_INVENTORY = flags.DEFINE_string(
    "inventory", "data/inventories/local.toml", "Inventory (TOML): whose nodes get certificates, and which folder."
)


def main() -> None:
    """Makes what is missing and says where it is."""
    inventory = read_inventory(_INVENTORY.value)
    made = make_certificates(inventory)
    print(f"{inventory.certificates}: made {', '.join(made) if made else 'nothing, all there'}")
    print("Each node needs ca.pem and its own .pem and .key; keep ca.key to yourself.")


if __name__ == "__main__":
    errors.run(main)
