"""One HTML page about a run: what was measured, as plain data, and apart from it how that is shown."""
