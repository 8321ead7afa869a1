"""Logs: one JSON object a line through structlog, the standard library's loggers bridged and kept quiet."""

import json
import logging
import sys
from typing import Any

import orjson
import psycopg
import structlog
import structlog.tracebacks

QUIET = ("psycopg.pool", "LiteLLM", "httpx", "httpcore", "openai", "aiohttp", "asyncio", "dramatiq")


def configure(level: str, process: str) -> None:
    """Set up logging for this process; call once in `main`."""
    stamps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*stamps, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(_traceback),
            structlog.processors.JSONRenderer(serializer=_rendered),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # Nothing prints these, and each line would look them up twice.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*stamps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )


def _traceback(exc_info: structlog.typing.ExcInfo) -> list[dict[str, Any]]:
    """A traceback without locals, and without what a database error quotes: neither may print a key or a prompt."""
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)(exc_info)
    links: list[BaseException] = []
    link: BaseException | None = exc_info[1]
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    states = [str(link.sqlstate) for link in links if isinstance(link, psycopg.Error)]
    if states:
        for frame in frames:
            frame["exc_value"] = f"sqlstate {', '.join(states)}"
    return frames


def _rendered(event: dict[str, Any], **options: Any) -> str:
    """JSON by orjson, a third of the time; what only the standard library can write is left to that."""
    try:
        return orjson.dumps(event, default=options["default"], option=orjson.OPT_PASSTHROUGH_DATACLASS).decode()
    except TypeError:
        return json.dumps(event, **options)


def _named(process: str) -> structlog.typing.Processor:
    def add_process(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    return add_process


def get(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; call it with an event word and fields, never with a prompt, a key or a URL's query."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
