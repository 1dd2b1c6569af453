"""A store needs no locks: every way to take one may fail, as on NFS, and all still works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
#include <errno.h>
#include <stdarg.h>
#include <fcntl.h>
#include <sys/file.h>
int flock(int fd, int operation) { (void)fd; (void)operation; errno = ENOLCK; return -1; }
int lockf(int fd, int cmd, off_t len) { (void)fd; (void)cmd; (void)len; errno = ENOLCK; return -1; }
"""
SCRIPT = """
import fcntl, sys
from pathlib import Path
try:
    fcntl.flock(0, fcntl.LOCK_SH)
except OSError:
    pass
else:
    raise SystemExit("locks work here: the test proves nothing")
from era_cache.collection.beir import read_beir
from era_cache.store.compact import compact
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from hash_encoder import HashEncoder
from era_cache.store.store import Store
from era_cache.store.verify import verify
store = Store.create(sys.argv[2])
texts = read_beir(Path(sys.argv[1]))
for dtype in ("float16", "float32"):
    embed_collection(store, texts, large=HashEncoder(8), small=HashEncoder(4, seed="s"),
                     config=EmbedConfig(dtype=dtype))
compact(store, dtype="float16")
collection = store.collection("toy")
for encoder in store.encoders():
    keys = collection.query_keys if encoder.spec.role.value == "query" else collection.doc_keys
    assert encoder.vectors(keys, check=True).shape[0] == len(keys)
assert verify(store).ok
print("done")
"""


def test_writing_reading_and_compacting_work_where_every_lock_fails(tmp_path: Path, toy: Path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and Linux")
    (tmp_path / "locks.c").write_text(SOURCE)
    library = tmp_path / "locks.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "locks.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(toy), str(tmp_path / "store")],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
