"""SGLang, and nothing but SGLang: the only part of sglang-fl that imports it, and the only one that knows its releases.

Entry points (``entry``), release differences (``seams``), the platform (``platform``), layers and their ops
(``bridges``, ``binding``), and the check after a model has loaded (``summary``).
"""
