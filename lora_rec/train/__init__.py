"""Training: losses, the loop, the prefix cache, the projections and the ranking head."""
