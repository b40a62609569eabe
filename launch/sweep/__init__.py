"""`python -m launch.sweep`: many trainings, here or on a cluster."""
