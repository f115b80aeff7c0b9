"""python -m edgefn: the same as the command edgefn."""

from edgefn.cli import main

main()
