"""Pictures of the page in every scenario of the mock: shots.py PAGE FOLDER [SCENARIO…]"""

import pathlib
import subprocess
import sys

import mock
from browser import Browser

page, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
with Browser() as browser:
    for name in sys.argv[3:] or mock.SCENARIOS:
        server = subprocess.Popen([sys.executable, pathlib.Path(__file__).with_name("mock.py"), page, name],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = server.stdout.readline().strip()
        browser.show_as(1400, "light")
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait_until("it draws", "return document.querySelectorAll('.figure').length === 6")
        for width, scheme in [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")]:
            browser.show_as(width, scheme)
            browser.wait_until("it fits", "return document.querySelector('.chart').viewBox.baseVal.width === document.querySelector('.chart').parentNode.clientWidth")
            browser.screenshot(folder / f"{name}-{width}-{scheme}.png")
            over = browser.run("return document.documentElement.scrollWidth - innerWidth")
            if over:
                print(name, width, "is wider than the screen by", over)
        server.stdin.close()
        server.wait()
        print(name, browser.complaints())
