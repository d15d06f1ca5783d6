"""Variants of a model side by side: what each costs, and what it is worth."""
