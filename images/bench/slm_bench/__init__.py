"""Measures servers on the node that it runs on, and proves that a model image has arrived there whole."""
