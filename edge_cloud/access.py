"""Who may call what, about whom: one table, applied by every server to every call before its handler sees it.

A caller is known by the name in its certificate, and its place by the inventory. A device speaks for itself, an edge
for itself and the devices that hang on it; the operator plans, reads and gives orders. A method without a row serves
nobody. The gRPC health service isn't in the table: it answers whoever has a certificate of the fleet's authority.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from edge_cloud.inventory import OPERATOR, RESERVED, Inventory

NODES = ("device", "edge", "cloud")


@dataclasses.dataclass(frozen=True)
class Rule:
    """At a node of kind `at`, a caller of kind `caller` may call.

    `own`: only one that hangs on this node, and only about whom it speaks for.
    """

    at: str
    caller: str
    own: bool


# What goes up the tree goes from neighbour to neighbour.
_UPWARDS = (Rule("edge", "device", True), Rule("cloud", "edge", True))

TABLE: dict[str, tuple[Rule, ...]] = {
    "Decide": _UPWARDS,
    "Classify": _UPWARDS,
    "Tell": _UPWARDS,
    "Broadcast": _UPWARDS,
    "TellRequests": _UPWARDS,
    "GetLease": (Rule("edge", "device", True),),
    "GetStanding": (Rule("cloud", "edge", True),),
    # A camera's image is nobody else's, nor what is seen in it.
    "Infer": (Rule("device", OPERATOR, False),),
    "SetOperator": (Rule("cloud", OPERATOR, False),),
    "SetPlan": (Rule("cloud", OPERATOR, False),),
    "GetState": (Rule("cloud", OPERATOR, False),),
    "SetStanding": (Rule("cloud", OPERATOR, False),),
    "CollectRequests": (Rule("cloud", OPERATOR, False),),
    "SetTraffic": (Rule("device", OPERATOR, False),),
    "SetBackground": tuple(Rule(kind, OPERATOR, False) for kind in NODES),
    "SetFault": tuple(Rule(kind, OPERATOR, False) for kind in NODES),
    "SetLink": (Rule("links", OPERATOR, False),),
}


def subjects(request: Any) -> tuple[set[str], set[str]]:
    """Whom a request is about: devices that it speaks for, and nodes whose state it tells."""
    device = {request.device} if "device" in request.DESCRIPTOR.fields_by_name else set()
    statuses = request.statuses if "statuses" in request.DESCRIPTOR.fields_by_name else ()
    return device, {status.node for status in statuses}


class Access:
    """The table at one node of a fleet.

    Args:
      kinds: by name, what each node is: `device`, `edge`, `cloud`, `links`, `operator`.
      upper: by name, the node above it.
      node: whose server asks.
    """

    def __init__(self, kinds: dict[str, str], upper: dict[str, str], node: str) -> None:
        self._kinds, self._upper, self._node = kinds, upper, node

    @classmethod
    def of(cls, inventory: Inventory, node: str) -> Access:
        """The table at one node of an inventory, or at its `links`."""
        kinds = {each.name: each.kind for each in inventory.nodes} | {name: name for name in RESERVED}
        above = {each.name: inventory.upper(each) for each in inventory.nodes}
        return cls(kinds, {name: upper.name for name, upper in above.items() if upper is not None}, node)

    def _hangs_here(self, rule: Rule, caller: str) -> bool:
        return not rule.own or self._upper.get(caller) == self._node

    def refusal(self, method: str, caller: str, request: Message) -> str:
        """Why `caller` may not call `method` here with this request: one line; empty if it may."""
        kind = self._kinds.get(caller, "")
        rules = [rule for rule in TABLE.get(method, ()) if rule.at == self._kinds[self._node]]
        mine = [rule for rule in rules if rule.caller == kind and self._hangs_here(rule, caller)]
        if not mine:
            allowed = " or ".join(rule.caller for rule in rules) or "nobody"
            found = f"{kind or 'no node of the fleet'} {caller[:40]!r}"
            return f"{method}: expected {allowed} as the caller, found {found}"
        devices, nodes = subjects(request)
        if mine[0].own:
            voice = {caller} | {name for name, upper in self._upper.items() if upper == caller}
            heard = {name for name in voice if self._kinds[name] == "device"}
            for told, allowed_names in ((devices, heard), (nodes, voice)):
                if not told <= allowed_names:
                    return f"{method}: expected {_listed(allowed_names)} from {caller!r}, found {_listed(told)}"
        return ""


def _listed(names: Iterable[str]) -> str:
    shown = sorted(name[:40] for name in names)
    return ", ".join(repr(name) for name in shown[:8]) + (" and others" if len(shown) > 8 else "")
