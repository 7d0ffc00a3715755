"""The data folder: made when missing, refused with its name when unusable, owned by one server."""

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.app.data_folder import own_folder, prepare_folder
from penstock.errors import Conflict, DataError

HOLD = """
import sys
from pathlib import Path
from penstock.app.data_folder import own_folder
with own_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_folder_is_made_private(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


@pytest.mark.case(19)
def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(DataError, match=str(tmp_path / "data")):
        prepare_folder(tmp_path / "data")


def test_second_owner_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Conflict, match=f"process {holder.pid}"), own_folder(tmp_path):
            pass
        holder.kill()
    with own_folder(tmp_path):
        assert (tmp_path / "serve.lock").read_text() != str(holder.pid)
