"""Replay buffers as records of pure functions: uniform (D_world), prioritized (D_direct) and keyed (D_plan)."""
