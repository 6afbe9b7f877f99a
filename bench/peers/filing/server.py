"""The contest's application for files: their routes, and nothing else."""

from config import CONFIG

from backlore import Backend

app = Backend(CONFIG)
app.routes(*app.file_routes())
