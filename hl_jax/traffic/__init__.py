"""Requests at their own times: when they come, how they queue, what a control period tells of them."""
