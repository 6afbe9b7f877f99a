"""An application that has users' files, and nothing else."""

from config import CONFIG

from backlore import Backend

app = Backend(CONFIG)
app.routes(*app.file_routes())
