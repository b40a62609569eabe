"""Hybrid learning for orchestrating deep-learning inference: pure functional JAX.

Nothing in this package reads a flag, a file or a clock, or logs: entry points in `launch/` do.
Shapes, everywhere: `N` devices (users), `C` choices per device, `A` joint actions, `K` candidates,
`B` batch, `M` buffer capacity, `S` seeds, `F` observed components, `H` hidden units.
"""
