"""Serves lists: the ranking head, exact search, re-ranking and the simple baselines; numpy alone."""
