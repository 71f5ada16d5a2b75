"""Other people's engines as teachers."""
