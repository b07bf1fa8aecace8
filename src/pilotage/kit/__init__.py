"""Tools without business words: time, settings, database, spool, blobs, processes, secrets."""
