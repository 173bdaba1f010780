"""sglang-fl on NVIDIA: sgl_kernel's ops and the CUDA platform."""
