"""Entry points (`python -m launch.train`, …): the only place that reads flags, files and clocks."""

from launch.host import runtime as runtime  # first: it sets how JAX starts
