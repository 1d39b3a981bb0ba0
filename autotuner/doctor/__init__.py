"""What this machine can do at most, and what is wrong with it."""
