"""The status page: what the coordinator writes of itself, as HTML for a browser. It can change nothing."""
