"""sglang-fl on FlagCX: collectives across chips."""
