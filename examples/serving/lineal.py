"""For agents in Python that serve calls and go on with what they were handed,
through `lineal sidecar`: the delegation of the call that is being served goes
with every call that its handler makes, and with no other.

    lineal = Lineal("http://127.0.0.1:8402", secret)
    app = lineal.receive(app)                    # WSGI
    lineal.open("http://127.0.0.1:8402/mcp/crm", body)
    httpx.post(url, headers=lineal.headers(url)) # or any other client

Whoever may reach the server can hand over a delegation; the sidecar verifies
it. So the server must take calls from the gateway alone, over mutual TLS.
"""

import contextvars
import urllib.parse
import urllib.request


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is sent is for the sidecar alone: a redirect is the answer."""

    def redirect_request(self, *_):
        return None


def _origin(url):
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


class Lineal:
    def __init__(self, url, secret):
        self._origin = _origin(url)
        self._secret = secret
        self._serving = contextvars.ContextVar("serving", default=(None, None))
        # No proxy: the sidecar is on this machine.
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))

    def receive(self, app):
        """Wraps a WSGI application, which no longer sees the delegation. What it
        returns is made whole first, so that all of it is made in its context."""

        def serve(environ, start_response):
            delegation = environ.pop("HTTP_LINEAL_DELEGATION", None)
            token = self._serving.set((delegation, environ.get("HTTP_LINEAL_REQUEST_ID")))
            try:
                return list(app(environ, start_response))
            finally:
                self._serving.reset(token)

        return serve

    def headers(self, url):
        """The headers for one call: none for a URL that is not the sidecar's."""
        if _origin(url) != self._origin:
            return {}
        delegation, parent = self._serving.get()
        out = {"Authorization": f"Bearer {self._secret}"}
        if delegation:
            out["Lineal-Delegation"] = delegation
        if delegation and parent:
            out["Lineal-Parent"] = parent
        return out

    def open(self, url, data=None, headers=None, timeout=60):
        """Opens a URL by the standard library."""
        request = urllib.request.Request(url, data, {**(headers or {}), **self.headers(url)})
        return self._opener.open(request, timeout=timeout)
