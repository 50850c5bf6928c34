"""``fetch --check``: asks every address of a dataset for its headers, and downloads nothing but lists."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .errors import FetchError
from .http_client import NETWORK_ERRORS, Headers, open_url, read_headers
from .sources import Remote, Source, listed_archives, mirrored

LARGEST_LIST = 10 * 2**20


@dataclass(frozen=True)
class Answer:
    """What an address says.

    Attributes:
        file: The file.
        headers: What the server says of it; None where it does not give it.
        problem: Why it cannot be used, "" if it can.
    """

    file: Remote
    headers: Headers | None
    problem: str


def check(source: Source, mirror: str | None, *, at_once: int) -> Iterator[Answer]:
    """Ask for every file, also for the archives that lists name.

    Args:
        source: The dataset.
        mirror: Address below which the files lie, in place of the publishers'.
        at_once: Requests at once.
    """
    files = [mirrored(file, mirror) for file in source.files]
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(_ask, files))
        for answer in answers:
            yield answer
            if answer.file.lists_archives and not answer.problem:
                try:
                    archives = listed_archives(answer.file, _text(answer.file), mirror)
                except FetchError as error:
                    yield Answer(answer.file, None, str(error))
                else:
                    yield from pool.map(_ask, archives)


def _ask(file: Remote) -> Answer:
    try:
        headers = read_headers(file.url)
    except FetchError as error:
        return Answer(file, None, str(error))
    problem = ""
    if file.size is not None and headers.size not in (None, file.size):
        problem = f"{file.url}: has {headers.size} bytes, published are {file.size}"
    return Answer(file, headers, problem)


def _text(file: Remote) -> str:
    try:
        with open_url(file.url) as answer:
            return answer.read(LARGEST_LIST).decode("utf-8", errors="replace")
    except NETWORK_ERRORS as error:
        raise FetchError(f"{file.url}: cannot be read ({error})") from error
