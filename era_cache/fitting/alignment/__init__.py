"""How the large space maps to the small one without labels, and how good a map is.

In: vectors of the same texts by both encoders. Out: a linear map to start from.
"""
