"""Google Cloud, for whoever has installed the extra ``vertex``: the only room that imports google.

Nothing here imports google before it is used.
"""
