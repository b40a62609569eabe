"""Real nodes, as training sees them. `adapter` alone joins hl_jax and edge_cloud."""
