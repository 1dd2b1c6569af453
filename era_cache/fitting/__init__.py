"""An adapter from stored tensors: align, train, choose.

In: vectors and labels of training and validation queries. Out: a folder with an adapter.
"""
