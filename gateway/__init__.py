"""The HTTP edge: authenticates, validates, starts requests, and shows what became of them."""
