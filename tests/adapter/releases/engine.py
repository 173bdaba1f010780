"""Generates with the ``sglang.Engine`` that comes first on the search path, and writes down what it answers.

``python -m tests.adapter.releases.engine MODEL ANSWER [TP PP]``, with the prompts and the number of tokens as JSON on
stdin; TP and PP are how many ranks share each layer, and the layers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SEED = 7


def main(model: str, answer: str, tp: str = "1", pp: str = "1") -> None:
    import sglang

    prompts, tokens = json.load(sys.stdin)
    engine = sglang.Engine(
        model_path=model,
        dtype="float32",
        skip_tokenizer_init=True,
        max_total_tokens=1024,
        max_running_requests=len(prompts),
        tp_size=int(tp),
        pp_size=int(pp),
        random_seed=SEED,
        log_level="info",
    )
    greedy = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    answers = engine.generate(input_ids=prompts, sampling_params=greedy)
    settings = engine.get_server_info()
    engine.shutdown()
    Path(answer).write_text(
        json.dumps(
            {
                "version": sglang.__version__,
                "tokens": [each["output_ids"] for each in answers],
                "schedule_policy": settings["schedule_policy"],
                "random_seed": settings["random_seed"],
            }
        )
    )


if __name__ == "__main__":  # the engine's workers import this module
    main(*sys.argv[1:])
