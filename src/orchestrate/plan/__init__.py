"""The plan: all that will be done to a guest, in one file that a person reads, edits and keeps."""
