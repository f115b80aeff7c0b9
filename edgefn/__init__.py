"""edgefn: functions on a gateway."""
__version__ = "0.1.0"
