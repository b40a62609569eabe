"""Beyond the paper: each device's response time is learned, and searched through."""
