"""How fast geossl is against a plain implementation of the published algorithms, measured side by side in one run.

The plain implementation is kept in a checkout's tools/plain and is loaded by its path; without it only geossl's own
times are measured. Before anything is timed both sides must have given the same result.
"""
