"""What runs behind the wall: a kernel, and papermill to drive it. Everything here is on the untrusted side.

    python -I worker.py CHANNEL FOLDER LIBRARY PROCESSES

or, where imports are shared, forked from a process that has made them (`forked.py`). CHANNEL is the number
of an inherited socket. Frames (`dulcourse.referee.wire`) that come and go, in this
order:

    →  hello                                       the kernel is there
    ←  setup: assignment, mode, sizes; checkpoints
    →  ready                                       the library answered; from here on all is the submission's
    ←  run: parameters, until; the notebook
    →  cell: index | checkpoint: name | done: index, error, text, withheld; images        for each cell
       (of a replay nothing is told: the kernel goes through all cells by itself)
    →  end: claim, reason
    ←  questions, relayed to the kernel, whose answers are relayed back

Nothing that is said here can raise a score: what the grader believes, it has seen from outside. This file
is bound behind the wall alone, so it imports nothing of the grader.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import resource
import secrets
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

TEXT_LIMIT, IMAGE_LIMIT, IMAGES = 64 << 10, 4 << 20, 8  # what is kept of one cell's output
MESSAGE_LIMIT = 32 << 20  # bytes that are printed or drawn at once
LEFT_OUT = ("rfc3987_syntax", "isoduration", "debugpy")

# A notebook that seeds nothing still trains the same model when it is run again; torch's own seed is random.
# numpy imports its generators only when they are first asked for.
_SEED = """
for _name, _seed in ("random", "seed"), ("numpy.random", "seed"), ("torch", "manual_seed"):
    if _name.partition(".")[0] in __import__("sys").modules:
        getattr(__import__(_name, fromlist=[_seed]), _seed)({seed})
del _name, _seed
"""

# A kernel that is there as soon as it has imported what every notebook imports. Nothing of that is garbage,
# and to look for some while it comes in would take an eighth of the time.
_KERNEL = """
import gc, sys
gc.disable()
sys.path = [p for p in sys.path if p]
sys.modules["debugpy"] = None  # nobody debugs here, and it would be half of the start
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
app.initialize(sys.argv[1:])
del sys.modules["debugpy"]
import dulcourse.handin
gc.enable()
del sys.argv[1:]
app.start()
"""


def main(channel: int, folder: Path, library: Path, processes: int, forked: bool = False) -> None:
    harden(processes)
    gc.disable()  # as in the kernel
    with contextlib.suppress(OSError):
        shutil.copytree(library / ".matplotlib", folder / ".matplotlib")
    kernel = Kernel(folder, library, forked)
    # The kernel imports torch on its own; meanwhile papermill is imported here.
    leave_out()
    wire = load_wire(library)
    link = Channel(socket.socket(fileno=channel), wire)
    try:
        runner = make_runner(kernel, link, folder)
        gc.enable()
        runner.connect()
    except KernelDeadError:
        sys.exit(f"the kernel did not start: {kernel.last_words()}")
    link.send({"event": "hello"})
    setup, checkpoints = link.receive()
    runner.set_up(setup, checkpoints)
    link.send({"event": "ready"})
    task, arrays = link.receive()
    runner.run(task, json.loads(arrays["notebook"].tobytes()))
    stream = runner.start_serving()
    link.send({"event": "end", "claim": "finished", "reason": ""})
    relay(link, stream, wire)


def leave_out() -> None:
    """Modules that papermill's own would import and nobody needs: durations, and a grammar in jsonschema's
    format checker that takes longer than everything else together; and the debugger.
    """
    sys.modules.update(dict.fromkeys(LEFT_OUT))


def warm_up() -> None:
    """Let papermill take a notebook of one cell through all that it does but the running: what it imports
    and compiles on the way is there for the next.
    """
    import nbformat.v4
    from papermill.engines import Engine, papermill_engines

    class Nothing(Engine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            """Nothing is run."""

    papermill_engines.register("nothing", Nothing)
    cell = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    execute(nbformat.v4.new_notebook(cells=[cell]), {"seed": 1}, "nothing")


def execute(notebook: Any, parameters: dict[str, Any], engine: str, **options: Any) -> None:
    """What a session has papermill do, by this engine."""
    import papermill.execute

    papermill.execute.execute_notebook(
        notebook,
        None,
        parameters=parameters,
        engine_name=engine,
        kernel_name="python3",
        language="python",
        progress_bar=False,
        autosave_cell_every=0,
        **options,
    )


def harden(processes: int) -> None:
    """Nobody looks into this process, no core is written, and a fork storm ends."""
    let_be_seen(False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))


def let_be_seen(yes: bool) -> None:
    ctypes.CDLL(None).prctl(4, int(yes), 0, 0, 0)  # PR_SET_DUMPABLE


def load_wire(library: Path) -> Any:
    """The module alone: its package would bring torch, which this process does not need."""
    sys.path.insert(0, str(library))
    spec = importlib.util.spec_from_file_location("wall_wire", library / "dulcourse" / "referee" / "wire.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class KernelDeadError(Exception):
    pass


class Channel:
    """The socket to the grader. Several threads may send; the last thing sent is `end`."""

    def __init__(self, stream: socket.socket, wire: Any):
        self.stream, self._wire = stream, wire
        self._lock = threading.Lock()

    def send(self, header: dict[str, Any], arrays: dict[str, Any] | None = None) -> None:
        with self._lock:
            self._wire.write_frame(self.stream, self._wire.encode(header, arrays or {}))

    def pass_on(self, frame: bytes) -> None:
        """Send what is a frame already."""
        with self._lock:
            self._wire.write_frame(self.stream, frame)

    def receive(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._wire.decode(self._wire.read_frame(self.stream))

    def end(self, claim: str, reason: str) -> NoReturn:
        """Say how it ended, and end."""
        with contextlib.suppress(Exception):
            self.send({"event": "end", "claim": claim, "reason": clip(reason, 2000)})
        os._exit(1)


class Kernel:
    """A stock kernel over unix sockets, started before anything heavy is imported here."""

    def __init__(self, folder: Path, library: Path, forked: bool):
        self.connection = {
            "transport": "ipc",
            "ip": str(folder / ".kernel"),
            **{f"{name}_port": 1 + i for i, name in enumerate(("shell", "iopub", "stdin", "control", "hb"))},
            "key": secrets.token_hex(16),
            "signature_scheme": "hmac-sha256",
        }
        path = folder / ".connection.json"
        path.write_text(json.dumps(self.connection))
        options = [f"--IPKernelApp.connection_file={path}", "--HistoryManager.hist_file=:memory:"]
        # A submission that signals its process group reaches itself. Without a wall the group is the only
        # hold on it.
        group = folder == Path("/tmp")
        start = self._fork if forked else self._execute
        self.pid, self._output = start(options, {"PYTHONPATH": str(library)}, group)
        self.said, self.limit, self.flooded = b"", 64 << 20, lambda: None
        self._draining = threading.Thread(target=self._drain, daemon=True)
        self._draining.start()

    def _execute(self, options: list[str], environment: dict[str, str], group: bool) -> tuple[int, int]:
        """A fresh interpreter; returns its number and where its output comes from."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _KERNEL, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            process_group=0 if group else None,
        )
        return self._process.pid, self._process.stdout.fileno()

    def _fork(self, options: list[str], environment: dict[str, str], group: bool) -> tuple[int, int]:
        """A copy of this process, which has imported all that a kernel needs and holds nothing of anybody."""
        output, theirs = os.pipe()
        pid = os.fork()
        if pid:
            os.close(theirs)
            return pid, output
        try:
            if group:
                os.setpgid(0, 0)
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            errors = os.dup(2)  # the kernel puts another in its place, which nobody reads when it ends here
            let_be_seen(True)  # as a program that was executed is
            os.environ.update(environment)
            sys.argv = ["-c", *options]
            for name in ("worker", "__main__", *LEFT_OUT):
                sys.modules.pop(name, None)
            sys.modules["__main__"] = main = type(sys)("__main__")
            exec(_KERNEL, vars(main))
        except SystemExit:
            pass
        except BaseException:
            os.write(errors, traceback.format_exc().encode(errors="replace"))
        finally:
            os._exit(0)

    def alive(self) -> bool:
        # Asked of the system by any thread; it stays a zombie, so that its number is not used again.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def ends_within(self, seconds: float) -> bool:
        """Whether the process is about to end: its sockets close a moment before."""
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.alive()

    def last_words(self) -> str:
        """What a kernel that is dead said."""
        self._draining.join(1)
        return self.said[-2000:].decode(errors="replace")

    def _drain(self) -> None:
        total = 0
        while piece := os.read(self._output, 1 << 16):
            total += len(piece)
            self.said = (self.said + piece)[-8192:]
            if total > self.limit:
                self.flooded()


def make_runner(kernel: Kernel, link: Channel, folder: Path) -> Any:
    """The part that needs papermill, defined after its slow import."""
    import nbformat
    import papermill.execute
    import zmq
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.connect import channel_socket_types
    from jupyter_core.utils import run_sync
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, papermill_engines
    from papermill.log import logger

    logger.disabled = True

    class Client(AsyncKernelClient):
        """A client that knows the kernel's process and takes no message that is too large."""

        def _create_connected_socket(self, channel, identity=None):
            stream = self.context.socket(channel_socket_types[channel])
            stream.linger = 0
            stream.setsockopt(zmq.MAXMSGSIZE, MESSAGE_LIMIT)  # on the context it has no effect
            stream.setsockopt(zmq.RECONNECT_IVL, 5)  # ms: until the kernel is there
            if identity:
                stream.identity = identity
            if channel in ("shell", "iopub"):
                monitor = stream.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                threading.Thread(target=watch, args=(monitor,), daemon=True).start()
            stream.connect(self._make_url(channel))
            return stream

        async def is_alive(self):
            return kernel.alive()

    def watch(monitor):
        """zmq drops the connection that brings a message too large; so does a kernel that dies."""
        with contextlib.suppress(zmq.ZMQError):
            zmq.Socket.shadow(monitor).recv_multipart()  # blocking: a thread of its own has no event loop
            if not kernel.ends_within(3):
                link.end("output_flood", "one message was too large")

    class Cells(PapermillNotebookClient):
        """Runs cells one by one, goes on after errors, and tells of each."""

        runner: Any = None

        def to_be_run(self):
            """Each cell with its place here, and its index in the notebook that was sent."""
            for position, cell in enumerate(self.nb.cells):
                index = cell.metadata.get("wall_index", -1)
                if index == self.runner.until:
                    return
                if cell.cell_type == "code" and cell.source.strip():
                    yield position, cell, index

        def papermill_execute_cells(self):
            for position, cell, index in self.to_be_run():
                self.error = None
                link.send({"event": "cell", "index": index})
                self.nb_man.cell_start(cell, position)
                self.execute_cell(cell, position)
                self.nb_man.cell_complete(cell, cell_index=position)
                self.runner.finished(index, cell, self.error)

        def process_message(self, message, cell, cell_index):
            self.runner.count(message)
            return super().process_message(message, cell, cell_index)

        def handle_comm_msg(self, outs, message, cell_index):
            """Widgets have nobody to show themselves to."""

        def note(self, cell, cell_index, execute_reply):
            content = execute_reply["content"]
            self.error = {
                "name": clip(content.get("ename", ""), 200),
                "message": clip(content.get("evalue", ""), 4000),
            }

    class Replayed(Cells):
        """Has the kernel go through the cells by itself: what they show was told by the first run."""

        def papermill_execute_cells(self):
            sources = [cell.source for _, cell, _ in self.to_be_run()]
            arguments = f"get_ipython().kernel, {sources!r}, {self.runner.awaited!r}"
            source = f"await __import__('dulcourse.referee.replay', fromlist=['replay']).replay({arguments})"
            cell = nbformat.v4.new_code_cell(source, metadata=self.nb.cells[0].metadata)
            self.execute_cell(cell, 0, store_history=False)

    class OnLiveKernel(Engine):
        """papermill's engine for a kernel that is already there and stays."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, runner=None, **options):
            cells = (Replayed if runner.replaying else Cells)(
                nb_man,
                km=Attached(),
                kernel_name=kernel_name,
                allow_errors=True,
                timeout=None,
                iopub_timeout=60,
                record_timing=False,
                store_widget_state=False,
                log=logger,
            )
            cells.kc, cells.runner, cells.on_cell_error = runner.client, runner, cells.note
            cells.execute()

    class Attached:
        """A kernel manager that manages nothing."""

        has_kernel = True

    papermill_engines.register("on-live-kernel", OnLiveKernel)

    class Runner:
        def connect(self):
            """Wait until both of the kernel's voices are heard."""
            self.client = Client()
            self.client.load_connection_info(kernel.connection)
            kernel.flooded = lambda: link.end("output_flood", "endless output")
            self.client.start_channels(hb=False, stdin=False, control=False)
            self.ask(self._first_words)

        def ask(self, question, *arguments):
            return run_sync(question)(*arguments)

        async def _first_words(self):
            while True:
                self.client.kernel_info()
                heard = [
                    channel.get_msg(timeout=1)
                    for channel in (self.client.shell_channel, self.client.iopub_channel)
                ]
                if not any(
                    isinstance(r, Exception) for r in await asyncio.gather(*heard, return_exceptions=True)
                ):
                    return
                if not kernel.alive():
                    raise KernelDeadError

        async def _silently(self, code):
            """Run code that leaves no trace."""
            asked = self.client.execute(code, silent=True, store_history=False)
            while True:
                with contextlib.suppress(Exception):
                    reply = await self.client.shell_channel.get_msg(timeout=1)
                    if reply["parent_header"].get("msg_id") == asked:
                        return reply["content"]
                if not kernel.alive():
                    raise KernelDeadError

        def silently(self, code):
            return self.ask(self._silently, code)

        def set_up(self, setup, checkpoints):
            """Open the hand-in session, with the weights of a replay in its folder."""
            self.sizes, self.replaying = setup["sizes"], setup["mode"] == "replay"
            self.handin, self.sent, self.marks, self.total = folder / "handin", {}, set(), 0
            self.names = sorted(checkpoints)
            kernel.limit = self.sizes["output"]
            self.handin.mkdir(exist_ok=True)
            for name, data in checkpoints.items():
                (self.handin / f"{name}.safetensors").write_bytes(data.tobytes())
            self.sent = {path.stem: stamp(path) for path in self.handin.glob("*.safetensors")}
            options = f"mode={setup['mode']!r}, folder={str(self.handin)!r}"
            reply = self.silently(
                f"__import__('dulcourse.handin').handin.begin({setup['assignment']!r}, {options})"
            )
            if reply["status"] != "ok":
                sys.exit(f"dulcourse.handin.begin failed: {reply.get('ename')}: {reply.get('evalue')}")

        def run(self, task, notebook):
            """All cells, through papermill."""
            self.until = task["until"]
            # A replay that is not told where to stop has all it needs once every model is loaded.
            self.awaited = self.names if self.until is None else []
            self.silently(_SEED.format(seed=int(task["parameters"].get("seed", 0))))
            try:
                for index, cell in enumerate(notebook["cells"]):
                    cell["metadata"] = {**cell.get("metadata", {}), "wall_index": index}
                execute(nbformat.from_dict(notebook), task["parameters"], "on-live-kernel", runner=self)
            except papermill.exceptions.PapermillExecutionError:
                pass  # raised at the end for any cell's error; each was told
            except (KernelDeadError, DeadKernelError):
                link.end("kernel_died", "")
            except CellTimeoutError:
                link.end("kernel_died", "the kernel stopped answering")
            except Exception as error:
                link.end("student_error", f"the notebook cannot be run: {type(error).__name__}: {error}")

        def finished(self, index, cell, error):
            self.send_checkpoints()
            marks = {path.name for path in folder.glob("withheld/*")} - self.marks
            self.marks |= marks
            text, images = view(cell.outputs)
            self.count_bytes(sum(map(len, images)))
            arrays = {f"image{i}": as_array(image) for i, image in enumerate(images)}
            tried = sorted(clip(mark, 200) for mark in marks)[:32]
            link.send(
                {"event": "done", "index": index, "error": error, "text": text, "withheld": tried}, arrays
            )
            cell.outputs = []

        def send_checkpoints(self):
            """Each set of weights that is new since the last cell."""
            for path in sorted(self.handin.glob("*.safetensors"))[:64]:
                with contextlib.suppress(OSError):
                    if (
                        self.sent.get(path.stem) == stamp(path)
                        or path.stat().st_size > self.sizes["checkpoint"]
                    ):
                        continue
                    self.sent[path.stem] = stamp(path)
                    link.send(
                        {"event": "checkpoint", "name": path.stem}, {"data": as_array(path.read_bytes())}
                    )

        def count(self, message):
            content = message["content"]
            values = [
                content.get("text", ""),
                *(content.get("data") or {}).values(),
                *content.get("traceback", ()),
            ]
            self.count_bytes(200 + sum(len(value) for value in values if isinstance(value, str)))

        def count_bytes(self, size):
            self.total += size
            if self.total > self.sizes["output"]:
                link.end("output_flood", "too much output")

        def start_serving(self):
            """The kernel answers questions in its main thread, over its own socket, until that closes."""
            path = folder / ".referee"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen(1)
            asked = self.client.execute(
                f"__import__('dulcourse.referee.serve', fromlist=['serve']).serve({str(path)!r}, globals())",
                silent=True,
                store_history=False,
            )
            self.client.iopub_channel.stop()  # nobody reads what answers print
            while not select.select([listener], [], [], 0.02)[0]:
                if not kernel.alive():
                    link.end("kernel_died", "")
                refused = self.ask(self._refusal, asked)
                if refused:
                    link.end("student_error", f"the kernel does not answer questions: {refused}")
            threading.Thread(target=watch_process, args=(kernel, link), daemon=True).start()
            return listener.accept()[0]

        async def _refusal(self, asked):
            with contextlib.suppress(Exception):
                reply = await self.client.shell_channel.get_msg(timeout=0)
                if reply["parent_header"].get("msg_id") == asked:
                    return f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}"
            return None

    return Runner()


def watch_process(kernel: Kernel, link: Channel) -> NoReturn:
    os.waitid(os.P_PID, kernel.pid, os.WEXITED | os.WNOWAIT)
    link.end("kernel_died", "")


def relay(link: Channel, stream: socket.socket, wire: Any) -> None:
    """Questions to the kernel, answers back, neither looked at: the grader checks, and has the clock."""
    while True:
        try:
            question = wire.read_frame(link.stream)
        except wire.WireError:
            return
        try:
            wire.write_frame(stream, question)
            answer = wire.read_frame(stream)
        except wire.WireClosed:
            link.end("kernel_died", "")
        except wire.WireError:
            os._exit(1)
        link.pass_on(answer)


def view(outputs: list[dict]) -> tuple[list[str], list[bytes]]:
    """What a cell showed: texts and PNG pictures, clipped. The grader checks and cleans both."""
    import base64

    text, images = "", []
    for output in outputs:
        data, stream = output.get("data", {}), output["output_type"] == "stream"
        if "image/png" in data:
            with contextlib.suppress(ValueError, TypeError):
                image = base64.b64decode(data["image/png"])
                images.extend([image] if len(image) <= IMAGE_LIMIT and len(images) < IMAGES else [])
            continue
        shown = output.get("text") if stream else data.get("text/plain")
        if output["output_type"] == "error":
            shown = "\n".join(map(str, output.get("traceback", [])))
        if isinstance(shown, str):
            # Pieces of a stream follow each other as they came; anything else begins a line.
            text += shown if stream or not text or text.endswith("\n") else "\n" + shown
    return [clip(text, TEXT_LIMIT)] if text else [], images


def clip(text: Any, limit: int) -> str:
    """The beginning and the end of a text, as characters that can be sent."""
    text = str(text)
    if len(text) > limit:
        text = f"{text[: limit // 2]}\n[{len(text) - limit} characters left out]\n{text[-limit // 2 :]}"
    return text.encode("utf-8", "replace").decode()


def stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def as_array(data: bytes) -> Any:
    import numpy

    return numpy.frombuffer(data, numpy.uint8)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
