"""Recordings and noises under permissive licences that anyone can have: what a hasher that is
shipped is trained on.

=========== ==================================================================================
sources     the table: which files of which Debian packages, by whom, under which licence
archives    files in Debian packages and in the archives of games
gather      files to a manifest: unpacked, decoded, rendered, spoken, mixed
overlap     what a test set holds as well, by search and by title
=========== ==================================================================================
"""
