"""The real execution layer: nodes that run MobileNets and talk gRPC, as in Figure 1 of the paper.

Needs nothing of JAX, so that a bare device runs it with `requirements-node.txt` alone. `node.py` puts the parts
together; README.md in this folder says what the parts are.
"""
