"""Specification and what it refers to -> the children wanted. Pure: no I/O, no clock."""
