"""The load client: requests at the times that they are due, and what came of each."""
