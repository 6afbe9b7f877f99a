"""The routes of users' files, for applications that want them: `app.routes(*app.file_routes())`."""
