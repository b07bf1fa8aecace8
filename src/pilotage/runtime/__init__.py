"""The composition root: the only room that knows which adapter is used; it opens and closes everything."""
