"""A tiny model, a real server for it, and what it must answer. Nothing of SGLang is imported: it is its own process."""
