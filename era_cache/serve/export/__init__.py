"""Adapters for other software: models, graphs, arrays and indexes that give the same vectors.

In: an adapter folder, its models or a store. Out: a folder that says which encoders and prompts it
expects, with the SHA-256 of its files.
"""
