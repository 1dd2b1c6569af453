"""The value of every test query, and what all of them say.

In: a store and adapters, or runs. Out: a folder of results, and the record that reports show.
"""
