"""An independent provider as a process of its own: Canaille, which insists on PKCE, a nonce and the client's secret.

    python tests/applications/provider/real.py PORT REDIRECT

A user's name decides whether its address is verified: not when it begins with "un".
"""

import os
import sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from werkzeug.serving import make_server

PASSWORD = "the provider's own password"
CLIENT = {"id": "backlore-test", "secret": "5e3r3t-0f-th3-cl13nt"}
USERS = {
    "ada": "Ada@example.org",
    "grace": "grace@example.org",
    "wanted": "wanted@example.org",
    "stranger": "stranger@example.net",
    "shy": "shy@example.org",
    "unverified": "member@example.org",
}
VERIFIED = "{{ 'false' if user.user_name.startswith('un') else 'true' }}"


def main(port: int, redirect: str) -> None:
    config = {
        "SECRET_KEY": "for this test alone",
        "SERVER_NAME": f"127.0.0.1:{port}",
        "PREFERRED_URL_SCHEME": "http",
    }
    app = create_app(config)
    # its settings know no such claim; it sends the word, as some others do
    app.config["CANAILLE_OIDC"]["USERINFO_MAPPING"]["EMAIL_VERIFIED"] = VERIFIED
    with app.app_context(), Backend.instance.session():
        fill(redirect)
    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


def fill(redirect: str) -> None:
    for name, email in USERS.items():
        user = models.User(user_name=name, family_name=name, formatted_name=name, emails=[email], password=PASSWORD)
        Backend.instance.save(user)
    client = models.Client(
        client_id=CLIENT["id"],
        client_secret=CLIENT["secret"],
        client_name="Backlore",
        client_uri="https://backlore.example",  # not trusted by default: it asks the user
        redirect_uris=[redirect],
        grant_types=["authorization_code"],
        response_types=["code"],
        scope=["openid", "email"],
        token_endpoint_auth_method="client_secret_basic",
    )
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
