"""Downloads against a server on loopback: cut, resumed, redirected, wrong, and archives that mean harm."""

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import pytest

from optbench.datasets import fetch
from optbench.datasets.base import DataError
from optbench.datasets.download import DownloadError, download
from optbench.datasets.fetch import Archive, DataFile, MissingDataError, Source, unpack

CONTENT = bytes(range(256)) * 400


class Server(http.server.ThreadingHTTPServer):
    """Serves ``pages``; ``cut`` closes the connection after so many bytes, once for each number."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.redirects, self.cut, self.ranges = {}, {}, [], True
        self.requests = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.end_headers()
            return
        page = server.pages.get(self.path)
        if page is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(page):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(page) - 1}/{len(page)}")
        self.send_header("Content-Length", str(len(page) - start))
        self.end_headers()
        end = start + server.cut.pop(0) if server.cut else len(page)
        self.wfile.write(page[start:end])


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A data folder of the test's own, and nothing to find elsewhere."""
    monkeypatch.setattr(fetch.platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.setattr(fetch, "DEBIAN", tmp_path / "debian")
    return tmp_path


def whole(path):
    if path.read_bytes() != CONTENT:
        raise DataError(f"{path}: wrong")


def get(server, tmp_path, **options):
    target = tmp_path / "file"
    options = {"check": whole, "limit": 10**6, "pause": 0.0, **options}
    download(server.address + "file", target, **options)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.pages["/file"], server.cut = CONTENT, [50_000, 20_000]
    seen = []
    get(server, tmp_path, progress=lambda name, done, total: seen.append((name, done, total)))
    assert [wanted for _, wanted in server.requests] == [None, "bytes=50000-", "bytes=70000-"]
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))


def test_the_next_call_goes_on_after_all_attempts_failed(server, tmp_path):
    server.pages["/file"], server.cut = CONTENT, [50_000]
    with pytest.raises(DownloadError, match=r"cut after 50,000 of 102,400 bytes, after 1 attempts"):
        get(server, tmp_path, attempts=1)
    assert not (tmp_path / "file").exists()
    get(server, tmp_path)
    assert server.requests[-1][1] == "bytes=50000-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.pages["/file"], server.cut, server.ranges = CONTENT, [50_000], False
    get(server, tmp_path)


def test_a_stale_part_is_replaced(server, tmp_path):
    server.pages["/file"] = CONTENT
    for stale in (b"something else", CONTENT + b"too long"):
        (tmp_path / "part-file").write_bytes(stale)
        get(server, tmp_path)
        (tmp_path / "file").unlink()


def test_a_wrong_file_is_refused_and_leaves_nothing(server, tmp_path):
    server.pages["/file"] = b"not it"
    with pytest.raises(DownloadError, match="file: wrong"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_followed_but_not_out_of_the_web(server, tmp_path):
    server.pages["/there"] = CONTENT
    server.redirects["/file"] = "/there"
    get(server, tmp_path)
    for target in ("file:///etc/hostname", "ftp://127.0.0.1/x"):
        server.redirects["/file"] = target
        with pytest.raises(DownloadError, match=r"not followed|not allowed"):
            get(server, tmp_path)


def test_refusals_name_the_answer(server, tmp_path):
    with pytest.raises(DownloadError, match="404"):
        get(server, tmp_path)
    assert len(server.requests) == 1
    server.pages["/file"] = CONTENT
    with pytest.raises(DownloadError, match="more than this file ever has"):
        get(server, tmp_path, limit=1000)


def test_a_server_that_is_not_there_is_given_up_after_two_attempts(tmp_path):
    with pytest.raises(DownloadError, match=r"refused.*after 2 attempts"):
        download("http://127.0.0.1:9/file", tmp_path / "file", check=whole, limit=10, pause=0.0)


def gzipped_source(server, **options):
    packed = gzip.compress(CONTENT)
    server.pages["/a.gz"] = packed
    file = DataFile(name="a", sha256=hashlib.sha256(CONTENT).hexdigest())
    return Source(folders=("made",), files=(file,), mirrors=(server.address,), **options)


def test_obtain_downloads_once_and_then_finds(server, cache):
    source = gzipped_source(server)
    located = fetch.obtain("made", source, pause=0.0)
    assert located.files["a"] == cache / "data" / "made" / "a.gz"
    fetch.obtain("made", source, pause=0.0)
    assert len(server.requests) == 1
    (check,) = fetch.check_files(source, located)
    assert check.ok
    assert check.bytes == len(CONTENT)


def test_files_are_looked_for_in_order(server, cache):
    source = gzipped_source(server)
    for place in ("debian", "data"):
        path = cache / place / "made" / "a"
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        assert fetch.find(source).files["a"] == path
    other = cache / "named" / "made" / "a.gz"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    assert fetch.find(source, cache / "named").files["a"] == other


def test_the_second_mirror_helps(server):
    source = gzipped_source(server)
    both = (server.address + "nothing/", server.address)
    assert fetch.obtain("made", Source(folders=("made",), files=source.files, mirrors=both), pause=0.0)


def test_what_is_missing_says_address_files_and_folder(server, cache):
    source = gzipped_source(server)
    server.pages.clear()
    with pytest.raises(MissingDataError, match=r"404") as caught:
        fetch.obtain("made", source, pause=0.0)
    assert caught.value.address == server.address
    assert caught.value.files == ("a",)
    assert caught.value.folder == cache / "data" / "made"
    for word in (server.address, "files:   a", str(cache / "data" / "made"), "OPTBENCH_DATA"):
        assert word in str(caught.value)


def test_a_dataset_behind_a_login_says_where(cache):
    source = Source(folders=("made",), files=(DataFile(name="train.csv"),), page="https://example.org/page")
    with pytest.raises(MissingDataError, match="its files need a login") as caught:
        fetch.obtain("made", source)
    assert caught.value.address == "https://example.org/page"


def make_zip(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def make_tar(members, link=None):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if link:
                entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, link, 0
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_gives_its_members_and_goes_away(server, cache, make):
    packed = make({"in/a": CONTENT, "in/other": b"x"})
    server.pages["/all.bin"] = packed
    archive = Archive(
        url=server.address + "all.bin", md5=hashlib.md5(packed).hexdigest(), members={"in/a": "a"}
    )
    source = Source(folders=("made",), files=(DataFile(name="a"),), archive=archive)
    located = fetch.obtain("made", source, pause=0.0)
    assert located.files["a"].read_bytes() == CONTENT
    assert sorted(path.name for path in located.folder.iterdir()) == [".lock", "a"]
    # An archive that the user put there is used as it is, and kept.
    located.files["a"].unlink()
    (located.folder / "all.bin").write_bytes(packed)
    assert fetch.obtain("made", source).files["a"].read_bytes() == CONTENT
    assert (located.folder / "all.bin").exists()
    assert len(server.requests) == 1


def test_an_archive_with_another_checksum_is_refused(server):
    server.pages["/all.zip"] = make_zip({"a": CONTENT})
    archive = Archive(url=server.address + "all.zip", md5="0" * 32, members={"a": "a"})
    source = Source(folders=("made",), files=(DataFile(name="a"),), archive=archive)
    with pytest.raises(MissingDataError, match=r"all.zip: not the published file: its MD5"):
        fetch.obtain("made", source, pause=0.0)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_no_path_in_an_archive_leads_out(tmp_path, make):
    path, folder = tmp_path / "archive", tmp_path / "inner"
    folder.mkdir()
    path.write_bytes(make({"../evil": b"evil", "a": CONTENT}))
    unpack(path, {"a": "a"}, folder)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "archive", "inner"]
    with pytest.raises(DataError, match="archive: lacks a file"):
        unpack(path, {"evil": "evil"}, folder)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb_is_not_unpacked(tmp_path, make):
    path = tmp_path / "bomb"
    path.write_bytes(make({"a": bytes(5_000_000)}))
    with pytest.raises(DataError, match="not unpacked"):
        unpack(path, {"a": "a"}, tmp_path, limit=1_000_000)
    assert [p.name for p in tmp_path.iterdir()] == ["bomb"]


def test_a_link_in_a_tar_is_not_followed(tmp_path):
    path = tmp_path / "links"
    path.write_bytes(make_tar({"a": b""}, link="/etc/hostname"))
    with pytest.raises(DataError, match="not a plain file"):
        unpack(path, {"a": "a"}, tmp_path)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_truncated_archive_is_named(tmp_path, make):
    path = tmp_path / "archive"
    packed = make({"a": hashlib.sha512(CONTENT).digest() * 300})
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="archive: a damaged archive"):
        unpack(path, {"a": "a"}, tmp_path)


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "raw", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("point", ["-", "."])
def test_idx_files_are_found_by_any_of_their_usual_names(tmp_path, folder, suffix, point):
    content = {"train-images-idx3-ubyte": b"images", "train-labels-idx1-ubyte": b"labels"}
    files = tuple(
        DataFile(name=name, sha256=hashlib.sha256(raw).hexdigest()) for name, raw in content.items()
    )
    source = Source(folders=("mnist", "MNIST/raw", "raw", "."), files=files)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, raw in content.items():
        path = tmp_path / folder / f"{name.replace('-idx', f'{point}idx')}{suffix}"
        path.write_bytes(gzip.compress(raw) if suffix else raw)
    found = fetch.find(source, tmp_path)
    assert found is not None
    assert set(found.files) == set(content)


def test_a_file_may_lie_in_a_folder_of_its_own_name(tmp_path):
    files = (DataFile(name="a-idx1-ubyte", sha256=hashlib.sha256(b"a").hexdigest()),)
    (tmp_path / "a-idx1-ubyte").mkdir()
    (tmp_path / "a-idx1-ubyte" / "a-idx1-ubyte").write_bytes(b"a")
    assert fetch.find(Source(folders=("mnist", "."), files=files), tmp_path) is not None


def test_a_flat_folder_of_another_dataset_is_passed_over(tmp_path):
    source = Source(folders=("mnist", "."), files=(DataFile(name="a-idx1-ubyte", sha256="0" * 64),))
    (tmp_path / "a-idx1-ubyte").write_bytes(b"other")
    assert fetch.find(source, tmp_path) is None
