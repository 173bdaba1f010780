"""The ATen layer: FlagGems' functions in the place of PyTorch's own ops, in every model and layer of a worker.

settings ──▶ plan ──▶ layer ──registers──▶ PyTorch's dispatcher, which is then asked what it really has
FlagGems' source ──▶ table ──▶ names
"""
