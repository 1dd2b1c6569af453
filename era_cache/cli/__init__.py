"""The commands: thin layers over `era_cache`."""
