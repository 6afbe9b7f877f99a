"""Our server with its file routes, one user, and nginx in front of it, for the benchmarks of files.

Laws: one worker, all defaults; its engine is moved to the client's core. nginx has one worker too, its access log is
off, and it connects from an address of its own (127.0.0.2), so that clients from other addresses are answered by us.
Its static files are the same files on the same disk.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import httpx
from contest import CLIENT_CORE, PEERS, SERVER_CORE, Ground, engine_of, family_of, free_port, listens, pin
from contestants import EMAIL, PASSWORD

PROXY = "127.0.0.2"  # as in peers/filing/config.py
NGINX = Template("""
daemon off; worker_processes 1; pid $folder/nginx.pid; error_log $folder/nginx.log warn; user root;
events { worker_connections 1024; }
http {
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream; keepalive_requests 1000000000;
    client_body_temp_path $folder/nginx-body; proxy_temp_path $folder/nginx-proxy;
    fastcgi_temp_path $folder/nginx-fastcgi; uwsgi_temp_path $folder/nginx-uwsgi; scgi_temp_path $folder/nginx-scgi;
    upstream ours { server 127.0.0.1:$ours; keepalive 64; }
    upstream constant { server 127.0.0.1:$constant; keepalive 64; }
    server {
        listen 127.0.0.1:$constant;
        location / { add_header X-Accel-Redirect /contents$$uri; return 200; }
    }
    server {
        listen 127.0.0.1:$port;
        location /static/ { alias $data/files/contents/; }
        location /contents/ {
            internal; alias $data/files/contents/; etag off; if_modified_since off;
            add_header ETag $$upstream_http_etag; add_header Last-Modified "";
            add_header Content-Security-Policy $$upstream_http_content_security_policy;
            add_header X-Content-Type-Options $$upstream_http_x_content_type_options;
            add_header X-Frame-Options $$upstream_http_x_frame_options;
            add_header Referrer-Policy $$upstream_http_referrer_policy;
        }
        location /limit/ {
            proxy_pass http://constant/; proxy_http_version 1.1; proxy_set_header Connection "";
        }
        location / {
            proxy_pass http://ours; proxy_bind $proxy; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Host $$host;
            proxy_set_header X-Forwarded-For $$remote_addr;
        }
    }
}
""")


@dataclass(frozen=True)
class Filing:
    """Our running server, and the headers that identify its user."""

    base: str
    identity: dict[str, str]  # headers
    pid: int
    data: Path

    @property
    def worker(self) -> int:
        """The pid of the process that serves."""
        return next(each.pid for each in family_of(self.pid) if "serve" in each.cmdline())

    def put(self, name: str, content: bytes) -> dict[str, Any]:
        """Upload a file. Returns what the server knows of it."""
        sent = {"file": (name, content)}
        reply = httpx.post(f"{self.base}/files", files=sent, data={"name": name}, headers=self.identity, timeout=120)
        return reply.raise_for_status().json()

    def lies_at(self, hash: str) -> Path:
        """The content on the disk that has this SHA-256."""
        for path in (self.data / "files" / "contents").glob("*/*"):
            if hashlib.sha256(path.read_bytes()).hexdigest() == hash:
                return path
        raise FileNotFoundError(hash)


def start_filing(ground: Ground, core: int | None = SERVER_CORE) -> Filing:
    """Our server on a core, or wherever the kernel places it."""
    port, data = free_port(), ground.folder / "data"
    run = [sys.executable, "-m", "backlore.cli", "run", "--app", PEERS / "filing"]
    process = ground.start(
        [*run, "--port", port, "--data", data, "--workers", 1], core=core, PYTHONPATH=str(PEERS.parent.parent)
    )
    base = f"http://127.0.0.1:{port}"
    ground.wait(process, lambda: _healthy(base))
    if core is not None:
        pin(engine_of(process.pid), CLIENT_CORE)
    account = {"email": EMAIL, "password": PASSWORD}
    with httpx.Client(base_url=base, timeout=30) as client:
        client.post("/auth/signup", json=account).raise_for_status()
        reply = client.post("/auth/login", json=account).raise_for_status()
    cookie = reply.headers["set-cookie"].partition(";")[0]
    return Filing(base, {"cookie": cookie, "x-csrf-token": reply.json()["csrf"]}, process.pid, data)


def start_nginx(ground: Ground, filing: Filing, core: int | None = SERVER_CORE) -> tuple[str, int]:
    """nginx in front of our server. Returns its address, and the pid of the process that serves.

    Below `/limit/` nginx is its own backend: it says itself what is sent, and looks nothing up.
    """
    port, file = free_port(), ground.folder / "nginx.conf"
    ports = {"ours": filing.base.rpartition(":")[2], "constant": free_port(), "port": port}
    file.write_text(NGINX.substitute(folder=ground.folder, data=filing.data, proxy=PROXY, **ports))
    process = ground.start(["nginx", "-e", ground.folder / "nginx.log", "-c", file], core=core)
    ground.wait(process, lambda: listens(("127.0.0.1", port)))
    return f"http://127.0.0.1:{port}", family_of(process.pid)[-1].pid


def _healthy(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
