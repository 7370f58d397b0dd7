"""Side effects, one module a step: thin adapters from the engine to the library."""
