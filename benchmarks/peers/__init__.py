"""Other trainers of query adapters, each in its own environment and process, on the same arrays."""
