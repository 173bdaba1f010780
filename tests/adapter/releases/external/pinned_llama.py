"""SGLang's Llama with a last norm that SGLang pins to its own forward, whatever else could serve it.

``force_native`` came with 0.5.19. Before, SGLang pinned layers of other classes, by what that argument does.
"""

from __future__ import annotations

import inspect
from typing import Any

from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.models import llama


class LlamaForCausalLM(llama.LlamaForCausalLM):  # by its name it takes the place of SGLang's
    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if "force_native" in inspect.signature(RMSNorm).parameters:
            self.model.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, force_native=True)
        else:
            self.model.norm._forward_method = self.model.norm.forward_native


EntryClass = LlamaForCausalLM
