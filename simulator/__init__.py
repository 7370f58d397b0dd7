"""A model provider, OpenAI- and Anthropic-compatible, that is slow, throttled, broken or wrong on demand.

For demos, tests and load. It keeps its own bill of every token it generated, so that a client's ledger can be checked
against what a provider would charge. Start it with `python -m simulator`, or in process with
`simulator.server.Simulator`.
"""
