"""Whether catalog, disk and S3 agree about users' files, and how they come to."""
