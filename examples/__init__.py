"""The demo, and what it shares with the tests and the benchmarks: a small model, and a server to ask."""
