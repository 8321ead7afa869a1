"""The `waybill` command: everything on one machine, and the tools beside it."""
