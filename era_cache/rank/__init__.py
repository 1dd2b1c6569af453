"""Which documents answer a query, and how good that is.

In: query and document vectors, judgements. Out: rankings, and the values of measures.
"""
