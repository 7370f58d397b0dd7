"""A small shop for the demos: a database, web pages, and tools of its own. Nothing of the product depends on it."""
