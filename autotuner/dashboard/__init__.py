"""The live record in a browser: read-only, for whoever holds the token, from this machine alone."""
