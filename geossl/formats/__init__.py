"""Codecs: files in, numpy arrays out, with their units; each refuses a file it does not understand by name."""
