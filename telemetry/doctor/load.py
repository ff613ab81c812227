"""Load the applications to check, as ``flask --app`` and ``celery -A`` do."""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from .finding import Finding


class NotFound(Exception):
    """An option does not name an application."""


class NotLoadable(Exception):
    """An application raises while it is loaded. Has the finding."""

    def __init__(self, option: str, name: str, why: str) -> None:
        super().__init__(why)
        self.finding = Finding(
            f"{option}-not-loadable",
            "web" if option == "flask" else "queue",
            f"--{option} {name} cannot be loaded: {why}",
            "correct that, or run the doctor in the environment of the process that serves this "
            "app",
        )


def load_flask(name: str) -> Any:
    """Load the Flask application *name*, as ``flask --app`` does."""
    try:
        from flask.cli import NoAppException, ScriptInfo
    except ModuleNotFoundError:
        raise NotFound(f"--flask {name} needs Flask: pip install 'queuehop[flask]'") from None
    try:
        with _loading("flask", name, NoAppException):
            return ScriptInfo(app_import_path=name).load_app()
    except NoAppException as exc:
        lines = str(exc).strip().splitlines()
        if len(lines) > 1:  # with the traceback of an import that failed inside the module
            raise NotLoadable("flask", name, lines[-1]) from None
        raise NotFound(f"--flask {name}: {exc}") from None


def load_celery(name: str) -> Any:
    """Load the Celery app *name*, as ``celery -A`` does, with its configuration."""
    try:
        from celery import Celery
        from celery.app.utils import find_app
    except ModuleNotFoundError:
        raise NotFound(f"--celery {name} needs Celery: pip install 'queuehop[celery]'") from None
    module, _, attribute = name.partition(":")
    try:
        _import("celery", name, module)
    except ModuleNotFoundError as exc:
        # The last part may be the app's: celery -A package.module.app
        module, _, attribute = module.rpartition(".") if not attribute else ("", "", "")
        if exc.name != name or module not in sys.modules:
            raise NotFound(
                f"--celery {name}: no module is named {exc.name}; {_instead()}"
            ) from None
    try:
        app = find_app(name)
    except (AttributeError, ImportError):
        if not attribute and hasattr(sys.modules[module], "__path__"):
            with suppress(ModuleNotFoundError):
                _import("celery", name, f"{module}.celery")
        wanted = f"no {attribute}" if attribute else "no Celery app"
        raise NotFound(f"--celery {name}: {module} has {wanted}; {_instead()}") from None
    app = getattr(app, "_get_current_object", lambda: app)()
    if not isinstance(app, Celery):
        kind = type(app).__qualname__
        raise NotFound(f"--celery {name}: not a Celery app, but of class {kind}; {_instead()}")
    with _loading("celery", name):
        app.finalize()
        app.loader.import_default_modules()  # as a worker does, to register all tasks
        _ = app.conf.broker_url
    return app


def _instead() -> str:
    """Return a valid ``--celery``: from the modules that are loaded, or from the sources."""
    from celery import Celery

    names = [
        f"{module.__name__}:{attribute}"
        for module in list(sys.modules.values())
        if _is_own(Path(getattr(module, "__file__", None) or "/"))
        for attribute, value in list(vars(module).items())
        if isinstance(value, Celery)
    ] or list(_in_sources())
    if names:
        # First a module of the name that Celery's manual gives it, and those near the root.
        names.sort(key=lambda name: (".celery:" not in name, name.count("."), name))
        return f"give --celery {' or '.join(names[:3])}"
    return (
        "run the doctor in the folder of the project and give module:app, as for celery -A; if a "
        "function makes the app, call it in a module: app = create_app().extensions['celery']"
    )


#: A module that assigns a Celery app to a name: one that it makes, or that a Flask app has.
_MAKES_APP = re.compile(
    r"""^(\w+)(?: *: *[\w.]+)? *= *(?:(?:celery\.)?Celery\(|.*\.extensions\[["']celery["']\])""",
    re.M,
)

#: The number of files that are searched for a Celery app.
_MOST_FILES = 5000


def _in_sources() -> Iterator[str]:
    """Yield each ``module:name`` below the current directory that makes a Celery app."""
    here = Path.cwd()
    for path in islice(_sources(here), _MOST_FILES):
        parts = path.relative_to(here).with_suffix("").parts
        for match in _MAKES_APP.finditer(path.read_text(errors="replace")):
            yield f"{'.'.join(parts).removesuffix('.__init__')}:{match[1]}"


def _sources(here: Path) -> Iterator[Path]:
    """Yield the Python files below *here*, without those of virtual environments."""
    for directory, names, files in os.walk(here):
        # Hidden directories and site-packages have no names that a package can have.
        names[:] = [name for name in names if name.isidentifier() and "pyvenv.cfg" not in files]
        for file in files:
            path = Path(directory, file)
            if path.suffix == ".py" and path.stem.isidentifier():
                yield path


def _import(option: str, name: str, module: str) -> None:
    """Import *module*. Raise ModuleNotFoundError only for itself or one of its packages."""
    try:
        with _loading(option, name, ModuleNotFoundError):
            import_module(module)
    except ModuleNotFoundError as exc:
        if f"{module}.".startswith(f"{exc.name}."):
            raise
        raise NotLoadable(option, name, _why(exc)) from None


@contextmanager
def _loading(option: str, name: str, *let_through: type[Exception]) -> Iterator[None]:
    try:
        yield
    except let_through:
        raise
    except (Exception, SystemExit) as exc:
        raise NotLoadable(option, name, _why(exc)) from None


def _why(exc: BaseException) -> str:
    """Return the exception, and the last line of the project in its traceback."""
    frames = [
        (Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(exc.__traceback__)
    ]
    own = [(path, line) for path, line in frames if _is_own(path)]
    where = f" ({own[-1][0].relative_to(Path.cwd())}:{own[-1][1]})" if own else ""
    return f"{type(exc).__name__}: {exc}{where}"


def _is_own(path: Path) -> bool:
    """Return whether *path* is a file of the project, and not of a package that it installed."""
    return path.is_relative_to(Path.cwd()) and "site-packages" not in path.parts
