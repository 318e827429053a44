"""Looks at the page of a server in Chromium, and fails if it does not show what the server says.

    look.py BASE [--key KEY]… [--pause PID] [--pictures FOLDER]

BASE is the address of the metrics, such as http://127.0.0.1:9150. Each KEY must be in the table of hot keys. PID is the
server's process: the test stops it for a while, to see that the page says so and recovers. Pictures of the page go to
FOLDER. At the end it prints `ok`.
"""

import argparse
import json
import os
import pathlib
import signal
import urllib.request

from browser import Browser

# What the page knows of itself, recorded from its first line on: its timers, its questions, breaches of the policy.
WATCH = """
window.watched = { timers: new Set(), fetches: 0, open: 0, breaches: [] };
document.addEventListener('securitypolicyviolation', (event) =>
  watched.breaches.push(event.violatedDirective + ' ' + event.blockedURI));
const [set, clear, get] = [setTimeout, clearTimeout, fetch];
window.setTimeout = (run, ...rest) => {
  const timer = set(() => { watched.timers.delete(timer); run(); }, ...rest);
  watched.timers.add(timer);
  return timer;
};
window.clearTimeout = (timer) => { watched.timers.delete(timer); clear(timer); };
window.fetch = (...all) => {
  watched.fetches += 1;
  watched.open += 1;
  return get(...all).finally(() => watched.open -= 1);
};
"""

# The texts whose contrast with their background is below 4.5 (WCAG AA).
FAINT = """
const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const color = rgb(getComputedStyle(node).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0] : [255, 255, 255];
};
const faint = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !node.getClientRects().length || /SCRIPT|STYLE/.test(node.tagName)) continue;
  const style = getComputedStyle(node);
  const [one, other] = [light(rgb(node.ownerSVGElement ? style.fill : style.color)), light(ground(node))];
  const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
  if (ratio < 4.5) faint.push(`${walk.currentNode.data}: ${ratio.toFixed(2)}`);
}
return faint;
"""


def ask(base, path):
    with urllib.request.urlopen(base + path, timeout=60) as answer:
        return json.load(answer)


def texts(browser, selector):
    return browser.run("return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", selector)


def check_drawn(browser, base, keys):
    """The page shows what the status has."""
    browser.wait_until("the page is drawn", "return document.querySelectorAll('.figure').length === 6")
    browser.wait_until("a chart has points", "return document.querySelector('#chart-requests path').getAttribute('d').includes('L')")
    for key in keys:
        browser.wait_until(f"{key} is hot", f"return [...document.querySelectorAll('#hot td.key')].some((cell) => cell.textContent === {json.dumps(key)})")
    status = ask(base, "/status.json")
    assert len(texts(browser, "#workers > li")) == len(status["workers"])
    assert status["server"]["version"] in texts(browser, "#facts > span")
    assert texts(browser, "#sentence")[0].endswith("."), texts(browser, "#sentence")
    for place in ["latency", "hot", "prefixes", "classes", "misses"]:
        assert texts(browser, f"#{place} tbody tr"), f"no rows: {place}"
    # A chart draws a line, or says why it does not.
    charts = browser.run("""return [...document.querySelectorAll('.chart')].map((chart) => ({
        name: chart.getAttribute('aria-label'), empty: chart.querySelector('.empty').textContent,
        points: [...chart.querySelectorAll('path')].map((path) => path.getAttribute('d').length) }))""")
    assert len(charts) == 7, charts
    for chart in charts:
        assert bool(chart["empty"]) != any(chart["points"]), chart
        assert "NaN" not in chart["name"] and "undefined" not in chart["name"], chart
    page = browser.run("return document.body.innerText")
    assert "NaN" not in page and "undefined" not in page and "Infinity" not in page, page
    assert browser.run("return document.images.length") == 0, "a key became markup"


def check_pointer(browser):
    """All charts show the values at one time: that under the pointer, or the one that keys choose."""
    box = browser.run("const box = document.querySelector('.chart').getBoundingClientRect(); return [box.right - 12, box.top + 60]")
    browser.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    browser.wait_until("charts show the cursor", "return document.querySelectorAll('.chart .time').length >= 2")
    times = texts(browser, ".chart .time")
    assert len(set(times)) == 1, times
    browser.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    browser.wait_until("the cursor has gone", "return !document.querySelector('.chart .time')")
    browser.run("document.querySelector('.chart').focus()")
    browser.devtools("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    browser.wait_until("keys move the cursor", "return document.querySelector('.chart .time')")
    browser.run("document.activeElement.blur()")


def check_sorting(browser):
    """A click on a title sorts, and another one turns the order round."""
    click = "[...document.querySelectorAll('#prefixes th button')].find((button) => button.textContent === 'Memory').click()"
    order = "return document.querySelector('#prefixes th[aria-sort]').getAttribute('aria-sort')"
    browser.run(click)
    assert browser.run(order) == "descending"
    first = texts(browser, "#prefixes td.key")[0]
    browser.run(click)
    assert browser.run(order) == "ascending"
    # The figures of a live server change meanwhile, and may be equal at first.
    turned = f"const keys = document.querySelectorAll('#prefixes td.key'); return keys.length === 1 || keys[0].textContent !== {json.dumps(first)}"
    browser.wait_until("the order turns round", turned)
    browser.run("document.querySelector('#prefixes th button').click()")


def check_looks(browser, folder):
    """Light and dark, wide and narrow: nothing is wider than the screen, and every text can be read."""
    grounds = set()
    for width in [1400, 400]:
        for scheme in ["light", "dark"]:
            browser.show_as(width, scheme)
            browser.wait_until("the charts fit", "const chart = document.querySelector('.chart'); return chart.viewBox.baseVal.width === chart.parentNode.clientWidth")
            assert browser.run("return document.documentElement.scrollWidth") <= width, f"wider than {width} pixels"
            grounds.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
            faint = browser.run(FAINT)
            assert not faint, f"{scheme}: {faint}"
            if folder:
                browser.screenshot(folder / f"page-{width}-{scheme}.png")
    assert len(grounds) == 2, grounds
    browser.show_as(1400, "light")


def check_hidden(browser):
    """A page that nobody sees asks for nothing."""
    show = "Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true }); document.dispatchEvent(new Event('visibilitychange'))"
    browser.run(show, True)
    browser.wait_until("no question is open", "return watched.open === 0")
    assert browser.run("return watched.timers.size") == 0, "a timer goes on in a hidden page"
    before = browser.run("return watched.fetches")
    browser.run(show, False)
    browser.wait_until("it asks again", f"return watched.fetches >= {before + 2}")


def check_pause(browser, pid, folder):
    """While the server does not answer, the page says so. When it answers again, the page goes on by itself."""
    assert browser.run("return document.getElementById('banner').hidden")
    os.kill(pid, signal.SIGSTOP)
    try:
        browser.wait_until("the page says that nobody answers", "return !document.getElementById('banner').hidden")
        assert "The server has not answered since" in texts(browser, "#banner")[0]
        assert texts(browser, "#health") == ["No answer"]
        if folder:
            browser.screenshot(folder / "page-no-answer.png")
    finally:
        os.kill(pid, signal.SIGCONT)
    browser.wait_until("the page recovers", "return document.getElementById('banner').hidden && !document.querySelector('.stale')")
    assert texts(browser, "#health") != ["No answer"]


def check_without_script(browser, base, keys, folder):
    """The server's own tables stand in the page, and nothing else does."""
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(base + "/")
    said = browser.run("return [document.body.innerText, document.getElementById('live').hidden, document.images.length]")
    for title in ["Memory", "Latency since start", "Workers", "Slab classes", "Hot keys", "Prefixes", "Slow requests"]:
        assert title in said[0], f"{title}: {said[0]}"
    for key in keys:
        assert key in said[0], f"{key}: {said[0]}"
    assert said[1] and said[2] == 0, said
    assert browser.run("return document.querySelector('noscript meta[http-equiv=refresh]') !== null")
    if folder:
        for width, scheme in [(1400, "light"), (400, "dark")]:
            browser.show_as(width, scheme)
            browser.screenshot(folder / f"tables-{width}-{scheme}.png")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--pause", type=int)
    parser.add_argument("--pictures", type=pathlib.Path)
    given = parser.parse_args()
    base, folder = given.base.rstrip("/"), given.pictures
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        browser.show_as(1400, "light")
        browser.open(base + "/")
        check_drawn(browser, base, given.key)
        check_pointer(browser)
        check_sorting(browser)
        check_looks(browser, folder)
        check_hidden(browser)
        assert not browser.run("return watched.breaches"), browser.run("return watched.breaches")
        assert not (complaints := browser.complaints()), complaints
        if given.pause:
            check_pause(browser, given.pause, folder)
            browser.complaints()
        check_without_script(browser, base, given.key, folder)
        # Without script, the policy has nothing to refuse.
        assert not (complaints := browser.complaints()), complaints
    print("ok")


if __name__ == "__main__":
    main()
