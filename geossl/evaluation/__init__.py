"""Protocols as data, and metrics: files and truth in, numbers out. Evaluation never runs a network."""
