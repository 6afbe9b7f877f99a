"""Files: on the local disk for speed, in S3 for good; nothing that was acknowledged is lost."""
