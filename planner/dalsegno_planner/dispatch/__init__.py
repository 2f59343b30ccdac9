"""Gives ready work to executors and records what they report."""
