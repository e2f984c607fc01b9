"""Searches: Optuna asks for settings of a study, the ordinary driver runs them, the ledger remembers the answers."""
