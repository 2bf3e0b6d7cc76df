"""How plugins come in: found, let in one by one, held to the role they fill, looked up by name."""
