"""What several tests share: scenarios with round numbers, second implementations, runs, fleets, contracts."""
