"""The requests that ask a model, as clients write them: read by the api, and by workers from the lines of a batch."""
