"""sglang-fl on Triton: FlagGems, kernels of its own, and FlagGems' ATen layer."""
