"""Where the time of one configuration goes."""
