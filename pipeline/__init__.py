"""What happens to an event: the stream, the decision, the review queue, and the command line."""
