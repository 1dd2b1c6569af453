"""A store that lies in a bucket, or wherever else fsspec reaches, read and written in place.

In: a URL. Out: a ``Store``. Segments are put whole under their names, which are digests of their
contents, so that writers need no lock; their keys and rows are read by ranges of bytes, of which a
bounded cache on this machine keeps what was read.
"""
