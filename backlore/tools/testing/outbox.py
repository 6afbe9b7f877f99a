"""Reads mails from the developer's page /outbox, over HTTP, like everything that a suite knows."""

import html
import re
import threading

from backlore.tools.testing.client import Client, NoReply, Outgoing

ROW = re.compile(r'<a href="(/outbox/[^"]+)">.*?<span class="to">(.*?)</span>', re.DOTALL)
TEXT = re.compile(r"<pre>\n?(.*?)</pre>", re.DOTALL)


class Inbox:
    """The mails that came since it was made. Each is used once."""

    def __init__(self, client: Client):
        self._client = client
        self._lock = threading.Lock()
        # exchanges the key for a cookie
        self._client.send(Outgoing("GET", f"/outbox?key={client.server.key}", {}, None))
        self._used = {link for link, _ in self._list()}
        self._texts: dict[str, str] = {}

    def _list(self) -> list[tuple[str, str]]:
        page = self._get("/outbox")
        return [(html.unescape(link), html.unescape(to)) for link, to in ROW.findall(page)]

    def _get(self, path: str) -> str:
        cookies = self._client.cookies.header(path)
        reply = self._client.send(Outgoing("GET", path, {"cookie": cookies} if cookies else {}, None))
        if reply.status != 200:
            raise NoReply(
                f"GET {path} gave {reply.status}: mails are seen in dev only, without SMTP, on one "
                "machine, by the URL of /outbox that the terminal printed"
            )
        return str(reply.body)

    def find(self, address: str, patterns: dict[str, str]) -> dict[str, str] | str:
        """What the patterns match in the newest mail to `address` that fits all, else why none does. Raises NoReply."""
        with self._lock:
            why = f"no new mail to {address}"
            for link, to in self._list():
                if link in self._used or to.lower() != address.lower():
                    continue
                text = self._text(link)
                found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
                missing = [name for name, match in found.items() if match is None]
                if not missing:
                    self._used.add(link)
                    return {name: (m[1] if m.re.groups else m[0]) or "" for name, m in found.items() if m}
                why = f"the mail to {address} has nothing for keep {missing[0]!r}: {patterns[missing[0]]}"
            return why

    def _text(self, link: str) -> str:
        if link not in self._texts:
            match = TEXT.search(self._get(link))
            self._texts[link] = html.unescape(re.sub(r"<[^>]*>", "", match[1])) if match else ""
        return self._texts[link]
