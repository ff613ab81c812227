"""Secrets in the texts that applications log: passwords and query strings of URLs."""

import re

#: Finds a name whose value may be a secret.
is_secret_name = re.compile(
    "(?i)pass(?:word|wd|phrase)|secret|token|api[_-]?key|private|credential|cookie|session"
    "|auth(?!or(?!iz))|dsn|signature|csrf"
).search

#: Each repetition has a bound, so the time is proportional to the length of the text.
_USER = (
    # scheme://user:password@host, where the password may have a slash; but not host:port/@path.
    re.compile(r"://[^\s\"'<>/?#@:]{0,256}:(?!\d{0,5}[/?#])[^\s\"'<>]{0,256}@"),
    # scheme://token@host
    re.compile(r"://[^\s\"'<>/?#]{1,256}@"),
)
#: Also of a path without a scheme, as in a server's log of requests.
_QUERY = re.compile(r"(?<=[\w/\]*.-])\?[^\s\"'<>=]{1,256}=[^\s\"'<>]*")

#: A name and its value, as in token=x.
_VALUE = re.compile(r"(?<![\w-])([\w-]{1,64}+)=[^\s\"',;&]+")

#: The same in JSON or in a dict, as in 'token': 'x'. The last value of a text that is cut has no
#: quote behind it.
_ITEM = re.compile(
    r"""(["'])([\w-]{1,64}+)\1:\s?(?:b?(["'])(?:\\.|(?!\3)[^\\])*+(?:\3|\Z)|[^\s"',}\])]+)""",
    re.DOTALL,
)


def mask(text: str) -> str:
    """Return *text* without users and passwords in URLs, query strings and values of secrets.

    A query string is what follows a question mark and has an equals sign. The value of a secret
    follows its name, as in token=x, 'token': 'x' and "token": "x".
    """
    if "://" in text and "@" in text:
        for pattern in _USER:
            text = pattern.sub("://***@", text)
    if "=" in text:
        if "?" in text:
            text = _QUERY.sub("?***", text)
        text = _VALUE.sub(_without_secret, text)
    if "':" in text or '":' in text:
        text = _ITEM.sub(_without_secret_item, text)
    return text


def _without_secret(value: re.Match[str]) -> str:
    return f"{value[1]}=***" if is_secret_name(value[1]) else value[0]


def _without_secret_item(item: re.Match[str]) -> str:
    quote, name = item[1], item[2]
    return f"{quote}{name}{quote}: {quote}***{quote}" if is_secret_name(name) else item[0]
