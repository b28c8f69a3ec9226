"""Floor 2: data on its way to the learner. Tokenizers, chat templates, packing, prompts, rollouts."""
