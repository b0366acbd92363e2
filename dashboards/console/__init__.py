"""The console in which people review: pages, a small API for them, and nothing from anybody else's server."""
