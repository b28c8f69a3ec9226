"""Floor 3: turning a batch into an optimizer step."""
