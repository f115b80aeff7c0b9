"""The data plane: a process of its own that takes events from MQTT through compiled handlers. Numba lives here only."""
