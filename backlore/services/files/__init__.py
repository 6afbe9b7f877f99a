"""Users' files: on the local disk for speed, in S3 for durability. Nothing that was acknowledged is lost."""
