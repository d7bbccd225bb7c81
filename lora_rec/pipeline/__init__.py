"""The stages of a run, wired: each function unpacks one section of the recipe and calls what does the work."""
