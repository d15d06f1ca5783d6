"""Specification and what was observed -> status. Pure: no I/O, time is an argument."""
