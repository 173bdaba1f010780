"""SGLang's groups of ranks, with their collectives by a communicator.

``coordinator`` takes the place of SGLang's ``GroupCoordinator`` where a communicator goes before SGLang's own;
``start`` gives each group the communicator that its ranks agree on; ``tensor_dicts`` moves dicts of tensors between
ranks; ``opaque`` hides the collectives from torch.compile.
"""
