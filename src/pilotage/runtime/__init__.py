"""The composition root: the only room that knows which adapter is used.

It opens and closes everything.
"""
