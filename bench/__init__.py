"""The benchmark: the product on this machine beside its floor, a bare litellm loop."""
