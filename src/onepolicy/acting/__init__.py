"""Floor 3: producing experience. Rollouts of environments, completions of prompts."""
