"""The stages of a run, wired: each unpacks one section of the recipe and calls what does the work."""
