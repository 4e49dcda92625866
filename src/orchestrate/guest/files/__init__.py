"""A guest's files: read from unmounted volumes or a mounted copy, edited without following its links out."""
