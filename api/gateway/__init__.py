"""The OpenAI-compatible front: its error envelope, its headers, its requests and answers."""
