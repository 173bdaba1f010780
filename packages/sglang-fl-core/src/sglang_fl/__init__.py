"""sglang-fl: serve any SGLang model on any AI chip, through pluggable ops, platforms and communicators."""
