"""Serves lists: the ranking head, exact search, re-ranking and explanations; numpy alone."""
