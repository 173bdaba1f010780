"""Triton kernels of our own: packed and strided input, any width, fp32 arithmetic, one launch, no autotuning."""
