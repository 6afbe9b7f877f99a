"""Finds the line of an application's own code that an error comes from."""

from pathlib import Path
from traceback import extract_tb

LONGEST = 1000  # characters


def blame(error: BaseException, folder: Path) -> str:
    """`server.py:12: NameError: …`, naming the innermost frame in a file below the folder; "" if there is none."""
    places = [(frame.filename, frame.lineno) for frame in extract_tb(error.__traceback__)]
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
        text = error.msg
    own = [(name, line) for file, line in places if (name := _own(Path(file), folder))]
    if not own:
        return ""
    file, line = own[-1]
    return f"{file}:{line}: {type(error).__name__}: {' '.join(text.split())}"[:LONGEST].removesuffix(": ")


def _own(file: Path, folder: Path) -> str:
    """The file's path relative to the folder; "" when it lies elsewhere or belongs to a library installed there."""
    if not file.is_relative_to(folder):
        return ""
    name = file.relative_to(folder)
    is_library = any(part.startswith(".") or part == "site-packages" for part in name.parts)
    return "" if is_library else str(name)
