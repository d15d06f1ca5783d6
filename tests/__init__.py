"""Tests of slmops."""
