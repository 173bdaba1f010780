"""What Opal claims."""

from __future__ import annotations

from sglang_fl.testing import Requirements

requirements = Requirements(
    plugin="opal",
    platform="opal",
    implementation="vendor.opal",
    closed={
        "gelu_and_mul": "Opal has none",
        "gelu_tanh_and_mul": "Opal has none",
        "gemma_rms_norm": "Opal has none",
        "layer_norm": "Opal has none",
        "attention": "SGLang's torch_native serves",
        "collectives": "torch's gloo serves",
        "graphs": "a CPU has none",
        "performance": "a chip that pretends is not fast",
    },
)
