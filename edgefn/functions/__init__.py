"""Python handlers: what starts them, who waits, which worker runs them, and what of them is kept."""
