# mtop watches servers from a terminal. The script is a terminal of 160 by 50 characters that reads what mtop draws. The
# arguments are the ports of two servers, and mtop. mtop shows an error if a field that it knows is missing.
import fcntl
import os
import pty
import re
import select
import socket
import struct
import sys
import termios
import time

COLUMNS, ROWS = 160, 50
*ports, mtop = sys.argv[1:]
# mtop shows the servers in this order.
ports.sort()
names = [f"127.0.0.1:{port}" for port in ports]
assert len(names) == 2

# Moves of the cursor, other sequences, and characters.
PIECES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[()=>].?|([^\x1b])", re.S)


class Terminal:
    def __init__(self, command):
        self.process, self.handle = pty.fork()
        if self.process == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(command[0], command)
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.clear()
        self.row = self.column = 0
        self.bytes = b""

    def clear(self):
        self.screen = [[" "] * COLUMNS for _ in range(ROWS)]

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.screen)

    def press(self, key):
        os.write(self.handle, key.encode())

    # Reads what mtop has drawn, or waits at most this many seconds for it.
    def draw(self, seconds):
        if not select.select([self.handle], [], [], seconds)[0]:
            return
        try:
            self.bytes += os.read(self.handle, 1 << 16)
        except OSError:  # it has gone
            raise AssertionError(f"mtop ended:\n{self.text()}")
        # A read can end within a sequence or a character. Incomplete bytes wait for the next read.
        end = max(self.bytes.rfind(b"\x1b"), 0)
        whole, self.bytes = self.bytes[:end], self.bytes[end:]
        for place, kind, letter in (piece.groups() for piece in PIECES.finditer(whole.decode())):
            if kind == "H":
                self.row, self.column = (int(number or 1) - 1 for number in (place or "1;1").split(";"))
            elif kind == "J":
                self.clear()
            elif letter and letter >= " " and self.row < ROWS and self.column < COLUMNS:
                self.screen[self.row][self.column] = letter
                self.column += 1


class Load:
    """Three hits and a miss of four gets, and a set."""

    def __init__(self, port):
        self.server = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.reader = self.server.makefile("rb")
        self.ask("".join(f"set key-{i} 0 0 5\r\nvalue\r\n" for i in range(40)), 40)

    def ask(self, requests, replies):
        self.server.sendall(requests.encode())
        return [self.reader.readline().decode().rstrip() for _ in range(replies)]

    def statistics(self, kind):
        self.server.sendall(f"{kind}\r\n".encode())
        lines = iter(lambda: self.reader.readline().decode().rstrip(), "END")
        return dict(line.split(" ", 2)[1:] for line in lines)

    def go(self):
        self.ask("get key-1 key-2 key-3 nothing\r\nset key-1 0 0 5\r\nvalue\r\n" * 10, 80)


loads = [Load(int(port)) for port in ports]
terminal = Terminal([mtop, *names])
deadline = time.monotonic() + 40


# Keeps the servers busy until `reads` finds something on the screen.
def wait_for(what, reads):
    while time.monotonic() < deadline:
        for load in loads:
            load.go()
        terminal.draw(0.01)
        if got := reads(terminal.text()):
            return got
    raise AssertionError(f"{what} is not what is drawn:\n{terminal.text()}")


# The numbers in a line of boxes, by the titles above them.
def boxes(text, titles):
    lines = text.split("\n")
    top = next((at for at, line in enumerate(lines) if all(title in line for title in titles)), None)
    if top is None:
        return None
    height = next((n for n, line in enumerate(lines[top + 1 :]) if "└" in line), 0)
    for line in lines[top + 1 : top + 1 + height]:
        words = re.findall(r"[0-9.]+[a-zA-Z/%]*[0-9.]*[a-zA-Z/%]*", line)
        if len(words) == len(titles):
            return dict(zip(titles, words))
    return None


def general(name):
    def read(text):
        if name not in text.split("\n")[3]:
            return None
        first = boxes(text, ["Memory", "Connections", "Hit Ratio"])
        second = boxes(text, ["Gets", "Sets", "Evictions", "Items"])
        third = boxes(text, ["Bytes tx", "Bytes rx", "User CPU", "System CPU"])
        if not (first and second and third):
            return None
        shown = first | second | third
        # These figures compare two moments, so mtop has none in the first second.
        ratio = float(shown["Hit Ratio"].rstrip("%"))
        return shown if 74 <= ratio <= 76 and not shown["Gets"].startswith("0/") else None

    return read


for name, load in zip(names, loads):
    shown = wait_for(f"{name} at work", general(name))
    assert shown["Items"] == "40", shown
    assert re.fullmatch(r"[0-9.]+k/64\.0M", shown["Memory"]), shown
    assert re.fullmatch(r"[1-9][0-9]*/1024", shown["Connections"]), shown
    assert shown["Evictions"] == "0/s", shown
    assert float(re.match(r"[0-9.]+", shown["Sets"]).group()) > 0, shown
    assert shown["User CPU"].endswith("%") and shown["System CPU"].endswith("%"), shown
    terminal.press("l")

# A table with one line for each class.
terminal.press("m")
wait_for("a table of classes", lambda text: "Slabs" in text)
slabs, items = (loads[1].statistics(f"stats {kind}") for kind in ("slabs", "items"))
expected = {
    (number, f"{slabs[f'{number}:chunk_size']}b", slabs[f"{number}:total_pages"], items.get(f"items:{number}:number", "0"))
    for number in {name.split(":")[0] for name in slabs if ":" in name}
}


def classes(text):
    rows = [re.findall(r"[^│ ]+", line) for line in text.split("\n")]
    return {tuple(row[:4]) for row in rows if len(row) >= 7 and row[0].isdigit()} == expected


wait_for(f"a table with {expected}", classes)
assert sum(int(row[3]) for row in expected) == 40, expected

terminal.press("q")
_, status = os.waitpid(terminal.process, 0)
assert status == 0, status
print("ok")
