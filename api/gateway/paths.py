"""Where the gateway is: at the root and under `/olla/litellm`, where some paths have a name without `/v1` as well."""

PREFIX = "/olla/litellm"
"""Every route of the gateway is served under it and without it."""
FIRST_WORDS = frozenset({"v1", "key", "user", "team", "spend"})
EVERYTHING = ("/", "/*")
WITHOUT_V1 = ("/chat/completions", "/completions", "/embeddings", "/models")
"""Under the prefix, other names of what is under `/v1`."""


def is_ours(path: str) -> bool:
    """Whether a path speaks the gateway's dialect, also one that leads nowhere."""
    return _is_below(path, PREFIX) or _is_first_word(path)


def is_keyless(path: str) -> bool:
    """Whether a development server may serve this path to who shows no key."""
    return path.startswith(f"{PREFIX}/v1/")


def one_name(path: str) -> str:
    """The name that all spellings of a path share: that of the root, and `/api` for `/api/v1`."""
    if _is_below(path, "/api/v1"):
        return "/api" + path.removeprefix("/api/v1")
    bare = path.removeprefix(PREFIX)
    if bare != path and any(_is_below(bare, short) for short in WITHOUT_V1):
        return f"/v1{bare}"
    return bare if _is_first_word(bare) or _is_below(bare, "/health") else path


def taken_in(route: str) -> tuple[str, ...]:
    """What a route that a key is narrowed to stands for, with all below each: `/x`, `/x/` and `/x/*` are the same.

    `/` is everything. The prefix itself is the gateway, and nothing else that is served at the root.
    """
    if route in EVERYTHING:
        return ("",)
    name = route.removesuffix("/*").rstrip("/")
    if not name:
        return ()
    return tuple(f"/{word}" for word in FIRST_WORDS) if _is_below(PREFIX, name) else (one_name(name),)


def without_v1(path: str) -> str | None:
    """The short name that a path under `/v1` has below the prefix; None: it has none."""
    bare = path.removeprefix("/v1")
    return bare if bare != path and any(_is_below(bare, short) for short in WITHOUT_V1) else None


def _is_first_word(path: str) -> bool:
    return path[1:].partition("/")[0] in FIRST_WORDS


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}/")
