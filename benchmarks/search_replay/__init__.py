"""Search strategies on recorded landscapes: what `search_efficiency.py` is made of."""
