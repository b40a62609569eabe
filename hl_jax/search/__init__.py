"""Search over joint actions: all of them (`joint`), or through their structure (`structured`)."""
