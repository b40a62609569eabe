"""The truth that everything else is judged by. Never imports `hl_jax.search`, so that each can check the other."""
