"""Floor 2: text problems and the verifiers that score their answers. No tensors here."""
