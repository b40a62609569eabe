"""What a user gives: flags, settings, scenario files, agents."""
