"""How good a map is: metrics against known people, beside the simple ways of spreading a census."""
