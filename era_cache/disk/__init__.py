"""Files: staged writes, checked reads.

In: bytes and records to keep. Out: whole files or none; what is read was checked first.
"""
