"""What tested programs can import: a sealed process can load nothing, so all of it is loaded before.

Invariant: the list is the same wherever programs are tested; what is not installed there is reported.
"""

from __future__ import annotations

_NAMES = """
    __future__ _strptime abc array ast asyncio base64 binascii bisect calendar cmath collections collections.abc
    colorsys concurrent.futures contextlib contextvars copy copyreg csv ctypes dataclasses datetime decimal
    difflib dis email encodings.ascii encodings.cp1252 encodings.hex_codec encodings.idna encodings.latin_1
    encodings.punycode encodings.unicode_escape encodings.utf_16 encodings.utf_32 encodings.utf_8_sig enum errno
    fileinput fnmatch fractions functools gc getpass glob graphlib gzip hashlib heapq hmac html html.parser
    inspect io ipaddress itertools json keyword linecache locale logging marshal math mmap multiprocessing
    numbers operator os os.path pathlib pickle platform pprint queue random re reprlib resource runpy sched
    secrets select selectors shlex shutil signal socket stat statistics string struct subprocess sys tempfile
    textwrap threading time timeit token tokenize traceback types typing unicodedata unittest urllib.parse
    urllib.request uuid warnings weakref xml.etree.ElementTree zlib zoneinfo numpy sortedcontainers
"""
MODULES = tuple(_NAMES.split())
"""Most of the standard library, and the two packages that programs of contests expect."""
