"""A throw-away OpenStack Swift with its S3 interface: an object store of many servers' code, none of it for tests.

It runs on loopback, on ports that are free, in a folder of its own. Its processes end with this one, however that ends.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.s3_server import REGION, Buckets

KEY, SECRET = "test:tester", "testing"
PACKAGES = "swift-proxy, swift-account, swift-container, swift-object, memcached"
_BACK = ("account", "container", "object")
_SERVERS = (*_BACK, "proxy")
_PROGRAMS = ("memcached", "setpriv", *(f"swift-{name}-server" for name in _SERVERS))
_PATH = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin:/sbin"
#: The Python that Debian's packages are installed for.
_SYSTEM_PYTHON = "/usr/bin/python3"
_START_SECONDS = 60
_TRIES = 3

_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}/conf
log_level = WARNING
"""
_BACK_CONF = """\
devices = {folder}/srv
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
[pipeline:main]
pipeline = {filters} {name}-server
[filter:busy]
paste.filter_factory = busy:of
flag = {folder}/busy
[app:{name}-server]
use = egg:swift#{name}
recon_cache_path = {folder}/cache
[object-updater]
recon_cache_path = {folder}/cache
"""
_PROXY_CONF = """\
[pipeline:main]
pipeline = catch_errors cache s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
#: A server of listings that is too busy for changes (the proxy tells it nothing; the servers of objects do, later).
_BUSY = """\
import os
def of(settings, flag, **own):
    def around(server):
        def answer(environ, start):
            is_change = environ["REQUEST_METHOD"] in ("PUT", "DELETE") and environ["PATH_INFO"].count("/") > 4
            if not is_change or not os.path.exists(flag):
                return server(environ, start)
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return answer
    return around
"""
_RINGS = """\
import sys
from swift.common.ring import RingBuilder
for name, port in (word.split("=") for word in sys.argv[2:]):
    rings = RingBuilder(4, 1, 1)
    rings.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1})
    rings.rebalance()
    rings.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""


def missing_programs() -> list[str]:
    """The programs of a Swift that are not installed here."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]


class Swift(Buckets):
    """``with Swift() as server: server.start()``: an S3 server at ``server.host``, without buckets."""

    key, secret = KEY, SECRET

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Swift:
        # Short, for the sockets; where disks are, since memory may have no extended attributes.
        self.folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="swift-", dir="/var/tmp")))
        self._cleanup.callback(self._end_all)
        return self

    @property
    def has_attributes(self) -> bool:
        """Tell whether files of its folder can have extended attributes, in which Swift keeps what it knows of them."""
        try:
            os.setxattr(self.folder, "user.swift", b"x")
        except OSError:
            return False
        return True

    def start(self) -> None:
        """Start every server; on other ports where somebody took one."""
        for _ in range(_TRIES):
            if self._start_all():
                return
            self._end_all()
        raise RuntimeError(f"Swift did not start:\n{self.logs()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def begin_anew(self) -> None:
        if "proxy" not in self._processes:
            self.come_back()
        self.thaw()
        if self._busy.exists():
            self.catch_up()

    # --- what happens to servers -------------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Nobody answers any more: connections are refused."""
        self._end("proxy")

    def come_back(self) -> None:
        """Answer again, where it was."""
        self._run("proxy")
        self._await()

    def freeze(self) -> None:
        """Answer nothing, with connections open, until `thaw`."""
        self._processes["proxy"].send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on where it froze."""
        self._processes["proxy"].send_signal(signal.SIGCONT)

    def let_listings_lag(self) -> None:
        """From now on listings hear of no change, until `catch_up`: as where the servers that keep them are busy."""
        self._busy.touch()

    def catch_up(self) -> None:
        """Tell the listings of all changes, and of every change from now on."""
        self._busy.unlink(missing_ok=True)
        command = [_program("swift-object-updater"), self._conf("object"), "once"]
        subprocess.run(command, env=self._environment(), check=True, timeout=120, capture_output=True)

    @property
    def _busy(self) -> Path:
        return self.folder / "busy"

    # --- as Buckets --------------------------------------------------------------------------------------------------

    def url(self, path: str, **options: str) -> str:
        """The URL of ``bucket/prefix``, with nothing but where the server is."""
        query = {"endpoint_override": self.host, "scheme": "http", **options}
        return f"s3://{path}?{'&'.join(f'{key}={value}' for key, value in query.items())}"

    def client(self, service: str = "s3") -> Any:
        """AWS' own client of this server, told not to send what Swift does not take."""
        config = Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
        )
        return boto3.client(
            service,
            endpoint_url=f"http://{self.host}",
            region_name=REGION,
            config=config,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    # --- starting and ending -----------------------------------------------------------------------------------------

    def _start_all(self) -> bool:
        """Start every server on new ports; tell whether they serve, which they do not where a port was taken."""
        for name in ("conf", "srv/d1", "cache", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "conf/swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        )
        names = (*_SERVERS, "memcached")
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self.host = f"127.0.0.1:{self._ports['proxy']}"
        (self.folder / "conf/busy.py").write_text(_BUSY)
        self._make_rings()
        for name in _SERVERS:
            self._configure(name)
        for name in names:
            self._run(name)
        return self._serves()

    def _make_rings(self) -> None:
        """Say where the servers are; by one start of Python, which takes longer than all the rest."""
        ports = [f"{name}={self._ports[name]}" for name in _BACK]
        command = [_SYSTEM_PYTHON, "-c", _RINGS, self.folder / "conf", *ports]
        subprocess.run(command, env=self._environment(), check=True, timeout=120)

    def _configure(self, name: str) -> None:
        values = {"folder": self.folder, "name": name, "port": self._ports[name], "user": getpass.getuser()}
        filters = "busy" if name == "container" else ""
        template = _COMMON + (_PROXY_CONF if name == "proxy" else _BACK_CONF)
        self._conf(name).write_text(template.format(**values, filters=filters, cache=self._ports["memcached"]))

    def _conf(self, name: str) -> Path:
        return self.folder / f"conf/{name}.conf"

    def _run(self, name: str) -> None:
        if name == "memcached":
            port = str(self._ports[name])
            command = ["memcached", "-u", getpass.getuser(), "-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "64"]
        else:
            command = [_program(f"swift-{name}-server"), str(self._conf(name))]
        with (self.folder / f"log/{name}").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(timeout=30)

    def _end_all(self) -> None:
        for name in list(self._processes):
            self._end(name)

    def _await(self) -> None:
        if not self._serves():
            raise RuntimeError(f"Swift did not come back:\n{self.logs()}")

    def _serves(self) -> bool:
        """Wait until the servers answer; return False if one ended, or after a minute."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and all(one.poll() is None for one in self._processes.values()):
            try:
                self.client().list_buckets()
                for name in _BACK:
                    socket.create_connection(("127.0.0.1", self._ports[name]), timeout=1).close()
            except (BotoCoreError, ClientError, OSError):
                time.sleep(0.1)
            else:
                return True
        return False

    def _environment(self) -> dict[str, str]:
        """An environment in which Swift's own Python finds Swift, whatever the tests run in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
        return kept | {"PATH": _PATH, "PYTHONPATH": str(self.folder / "conf")}

    def logs(self) -> str:
        """What the servers said, the last of it."""
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in (self.folder / "log").iterdir())


def _program(name: str) -> str:
    return shutil.which(name, path=_PATH) or name


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
