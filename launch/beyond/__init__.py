"""`python -m launch.beyond`: what `factored` must show."""
