"""The real execution layer: nodes that run MobileNets and talk gRPC, as in Figure 1 of the paper.

Needs nothing of JAX, so that a bare device runs it with `requirements-node.txt` alone. `node.py` puts the parts
together; README.md in this folder says what the parts are.
"""

import os

# gRPC's event engine hands what arrives to threads of its own, which costs a fifth of a small call's time; the poller
# that it replaced doesn't. gRPC reads this once, so it stands before any module here imports it.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
