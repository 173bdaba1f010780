"""Scripts that measure. Each prints one line a figure, takes ``--json FILE``, and exits 1 when a bound is missed."""
