"""The commands: each parses its options, calls one function and renders what it gives.

In: arguments of a shell. Out: a result on stdout, messages on stderr, an exit code.
"""
