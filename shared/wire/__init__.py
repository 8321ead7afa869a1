"""What the gateway speaks, beyond the api: workers read requests from the lines of a batch and write its answers."""
