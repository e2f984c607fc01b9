"""The science: arrays and files in, arrays and files out. Knows nothing of what schedules or stores it."""
