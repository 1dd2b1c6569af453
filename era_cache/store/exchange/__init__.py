"""Vectors in and out: files that users have, rows matched to texts, and files for others."""
