"""Chromium without a window, driven by chromedriver over plain HTTP."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

CHROMIUM, DRIVER = "chromium", "chromedriver"
# Longest wait for anything. It ends a test that hangs, and is many times what a busy machine needs.
PATIENCE = 60
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


class Browser:
    """A browser with one tab. It ends with the `with` block."""

    def __init__(self):
        self.driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.session = None

    def __enter__(self):
        try:
            self.base = None
            for line in self.driver.stdout:
                if found := re.search(r"successfully on port (\d+)", line):
                    self.base = f"http://127.0.0.1:{found[1]}"
                    break
            assert self.base, "chromedriver did not say its port"
            options = {"binary": shutil.which(CHROMIUM), "args": FLAGS}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            self.session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        if self.session:
            self.call("DELETE", f"/session/{self.session}")
        self.driver.terminate()
        self.driver.wait()

    def call(self, method, path, body=None):
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from None

    def within(self, path, body=None):
        return self.call("POST", f"/session/{self.session}{path}", body)

    def devtools(self, command, **parameters):
        return self.within("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url):
        self.within("/url", {"url": url})

    def run(self, script, *arguments):
        """The result of a script in the page."""
        return self.within("/execute/sync", {"script": script, "args": list(arguments)})

    def wait_until(self, what, script):
        """Looks again and again until the script returns something true, and returns it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if result := self.run(script):
                return result
            time.sleep(0.02)
        raise AssertionError(f"it took too long until {what}; the page says: {self.run('return document.body.innerText')}")

    def show_as(self, width, scheme, density=2):
        """Sets the width of the screen in pixels, and light or dark."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=density,
                      mobile=width < 600)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        """The whole page as a picture."""
        size = self.run("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        picture = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(picture["data"]))

    def complaints(self):
        """What the console was told since the last call: errors, and breaches of the policy."""
        entries = self.within("/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in entries if entry["level"] in ("SEVERE", "WARNING")]
