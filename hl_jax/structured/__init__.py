"""Search over joint actions through their structure: tasks slow one another only by how many share a node."""
