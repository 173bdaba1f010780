"""The default plugin: plain PyTorch on any device, always there, and the oracle for every other backend."""
