"""Floor 5: runnable experiments. Each recipe has a Config, PRESETS and main()."""
