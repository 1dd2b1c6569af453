"""Look at single queries: the rankings of an adapter's candidates side by side.

In: a store, an adapter folder, and the two encoders where queries are typed that the store does
not know. Out: an ``Answer`` for each query, shown in the terminal (``show``) or on a page that a
small server gives out (``server``). ``export`` writes adapters for other software.
"""
