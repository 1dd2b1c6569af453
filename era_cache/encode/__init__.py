"""Texts to vectors; the only package that loads a model.

In: collections and models. Out: rows in a store, keyed by everything that changes them.
"""
