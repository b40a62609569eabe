"""Entry points (`python -m launch.train`, …): the only place that reads flags, files and clocks."""

from launch import runtime as runtime  # first: it sets how JAX starts
