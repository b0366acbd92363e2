"""The commands of `weir`, one file a group; each imports what it needs when it runs."""
