"""Real nodes, as training sees them. `adapter` and `standing` alone join hl_jax and edge_cloud."""
