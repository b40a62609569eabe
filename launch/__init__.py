"""Entry points (`python -m launch.train`, …): the only place that reads flags, files and clocks."""
