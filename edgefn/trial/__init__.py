"""Handler files at work without a gateway: over recorded events, in tests, and once by hand, by a clock that others turn."""
