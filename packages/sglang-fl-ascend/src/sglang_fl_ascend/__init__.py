"""sglang-fl on Ascend NPUs: torch_npu's ops and the Ascend platform."""
