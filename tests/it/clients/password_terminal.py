"""`corecached password` at a terminal, which does not show what is typed. The argument is the program."""
import os
import pty
import sys


def typed(*passwords):
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.argv[1], [sys.argv[1], "password", "web"])
    shown, prompts = b"", [b"Password: ", b"Once more: "]
    for prompt, password in zip(prompts, passwords):
        while prompt not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, password.encode() + b"\n")
    while True:
        try:
            more = os.read(terminal, 1000)
        except OSError:
            break
        if not more:
            break
        shown += more
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


code, shown = typed("a secret", "a secret")
assert code == 0 and "web SCRAM-SHA-256$4096:" in shown and "a secret" not in shown, (code, shown)
code, shown = typed("a secret", "another")
assert code == 64 and "the two differ" in shown and "secret" not in shown, (code, shown)
print("ok")
