"""Checks whether catalog, disk and S3 agree about users' files, and repairs them where they don't."""
