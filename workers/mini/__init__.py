"""The bundled checkpoint, and how it was trained."""
