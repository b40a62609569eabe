"""Tabular Q-learning over joint actions."""
