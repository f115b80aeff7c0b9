"""Tests of Python handlers: events, workers, the scheduler and what it keeps."""
