"""What the models are asked, in several languages and formats."""

from __future__ import annotations

PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village by the sea, there lived",
    "def fibonacci(n):\n    ",
    "SELECT name, age FROM users WHERE",
    "The three laws of thermodynamics state that",
    "1, 1, 2, 3, 5, 8, 13, 21,",
    "Q: What is 12 times 11?\nA:",
    "Ingredients: 200 g flour, 2 eggs, 1 pinch of salt.\nMethod:",
    "Der schnelle braune Fuchs",
    "今日の天気は",
    "Dear Ms Okafor,\n\nThank you for your letter of 3 March. I am sorry to say that",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer",
    '{"name": "Ada Lovelace", "born": 1815, "occupation":',
    "A chip's memory is slower than its arithmetic, so a kernel that reads its inputs once and writes its outputs once "
    "is bound by bandwidth. For a vector of one million 32-bit floats, this means that",
)
