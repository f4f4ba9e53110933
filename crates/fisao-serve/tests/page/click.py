"""Uses the page of `fisao serve --http` as a reader does, in headless Chromium.

    python click.py http://127.0.0.1:8000 photo.jpg [--width 1200] [--height 900] [--dark] [--wait 60] [--screenshots DIR]

Drops the image on the page, asks, waits until object words are coloured, focuses one, checks that its heat map is drawn, and asks
again without the adapter if the server has one. Exit code 0: all of it works; 1: something does not, and a message says what; 77:
there is no Chromium (the variable CHROMIUM may name one). The server needs a verifier with a calibration. Python's standard library
is enough: Chromium is spoken to over a pipe, one JSON object after the other, each followed by a zero byte.
"""

import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
COLOURED = "document.querySelectorAll('#answers .word.there, #answers .word.absent').length"
DONE = "document.querySelector('#stop').hidden && /^Done/.test(document.querySelector('#status').textContent)"
# Of which word there is a heat map, with the opacity of its clearest and its darkest pixel; null where there is none.
HEAT_MAP = """(() => {
    const canvas = document.querySelector('#heat');
    if (canvas.hidden || !canvas.width) return null;
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const opacity = pixels.filter((_, byte) => byte % 4 === 3).sort();
    return { word: canvas.dataset.word, clearest: opacity[0], darkest: opacity.at(-1) };
})()"""


class Failed(Exception):
    """The page does not do what it should."""


class Page:
    """A tab of a browser of its own."""

    def __init__(self, program, profile):
        read, self.to_browser = os.pipe()
        self.from_browser, write = os.pipe()
        for end in (read, write):
            os.set_inheritable(end, True)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # Chromium reads what it is told from file 3 and answers on file 4.
        script = f'exec 3<&{read} 4>&{write}; exec "$0" "$@"'
        command = ["bash", "-c", script, program, *flags, "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=(read, write), stderr=subprocess.DEVNULL)
        for end in (read, write):
            os.close(end)
        self.received, self.calls, self.session = b"", 0, None
        self.mistakes = []  # of the page: exceptions, and what its Content-Security-Policy refused
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.calls += 1
        request = {"id": self.calls, "method": method, "params": params}
        request |= {"sessionId": self.session} if self.session else {}
        os.write(self.to_browser, json.dumps(request).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.calls:
            if answer.get("method") == "Runtime.exceptionThrown":
                self.mistakes.append(answer["params"]["exceptionDetails"]["exception"].get("description", "an exception"))
            elif answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["source"] in ("security", "javascript"):
                self.mistakes.append(answer["params"]["entry"]["text"])
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def receive(self, seconds=60):
        while b"\0" not in self.received:
            if not select.select([self.from_browser], [], [], seconds)[0]:
                raise Failed(f"the browser says nothing for {seconds} seconds")
            more = os.read(self.from_browser, 1 << 16)
            if not more:
                raise Failed("the browser has ended")
            self.received += more
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise Failed(f"{expression}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def wait(self, what, expression, seconds):
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            problem = self.evaluate("[...document.querySelectorAll('#problem:not([hidden]) p')].map(p => p.innerText).join(' ')")
            if problem:
                raise Failed(f"{what}: the page says: {problem.strip()}")
            if time.monotonic() > end:
                raise Failed(f"{what}: not within {seconds} seconds")
            time.sleep(0.05)
        return value

    def middle(self, selector):
        where = f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{ block: 'center', behavior: 'instant' }});
            const box = element.getClientRects()[0];
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = self.evaluate(where)
        return {"x": x, "y": y}

    def click(self, selector):
        place = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def point(self, selector):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **self.middle(selector))

    def drop(self, selector, path):
        place, data = self.middle(selector), {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **place)

    def screenshot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(image["data"]))

    def close(self):
        for end in (self.to_browser, self.from_browser):
            os.close(end)
        self.process.terminate()
        self.process.wait()


def use(page, arguments, picture):
    page.call("Emulation.setDeviceMetricsOverride", width=arguments.width, height=arguments.height, deviceScaleFactor=1, mobile=False)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if arguments.dark else "light"}
    page.call("Emulation.setEmulatedMedia", features=[scheme])
    page.call("Page.navigate", url=arguments.url)
    page.wait("the page is loaded", "document.title === 'FiSAO' && document.readyState === 'complete'", 10)
    page.wait("the models are known", "models.length", arguments.wait)
    picture("empty")

    page.drop("#photo", arguments.image.resolve())
    page.wait("the photo is shown", "document.querySelector('#image').naturalWidth", 10)
    name = page.evaluate("document.querySelector('#image').alt")
    if arguments.image.name not in name:
        raise Failed(f"the photo's alternative text does not name {arguments.image.name}: {name}")

    page.click("#ask")
    page.wait("a word is coloured", COLOURED, arguments.wait)
    picture("writing")
    page.wait("the caption is complete", DONE, arguments.wait)
    check_words(page)
    check_heat_map(page, "document.querySelector('#answers .word:is(.there, .absent)').focus()", arguments.wait)
    picture("focused")
    page.evaluate("document.activeElement.blur()")
    if page.evaluate(HEAT_MAP):
        raise Failed("the heat map stays when the word loses the focus")

    if page.evaluate("models.length") < 2:
        return print("the server has one model: the adapter is not toggled")
    page.click("[name=adapter][value=both]")
    page.click("#ask")
    page.wait("two captions are begun", "document.querySelectorAll('.column .answer .text:not(:empty)').length === 2", arguments.wait)
    page.wait("both captions are complete", DONE, arguments.wait)
    titles = page.evaluate("[...document.querySelectorAll('.column > h2')].map(title => title.textContent)")
    if titles != ["with adapter", "without adapter"]:
        raise Failed(f"the columns are {titles}")
    check_words(page)
    page.point(".column:last-child .word:is(.there, .absent)")
    check_heat_map(page, "0", arguments.wait)
    picture("both")


def check_words(page):
    """Each word is told by more than its colour."""
    words = page.evaluate("""[...document.querySelectorAll('#answers .word')].map(word =>
        [word.textContent, word.ariaLabel, word.tabIndex, getComputedStyle(word).textDecorationLine])""")
    for text, label, tab, line in words:
        if not label.startswith(f"{text}: ") or tab != 0 or line == "none":
            raise Failed(f"the word {text} has label {label!r}, tab index {tab} and line {line!r}")


def check_heat_map(page, act, seconds):
    page.evaluate(act)
    drawn = page.wait("the heat map is drawn", HEAT_MAP, seconds)
    if drawn["word"] != page.evaluate("document.querySelector('.looked').textContent"):
        raise Failed(f"the heat map is that of {drawn['word']}")
    if drawn["darkest"] <= drawn["clearest"]:
        raise Failed(f"the heat map of {drawn['word']} is the same everywhere")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("image", type=pathlib.Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--wait", type=float, default=60, help="seconds that an answer may take")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("skipped: there is no Chromium")
        return SKIPPED

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        page = Page(program, profile)

        def picture(name):
            if arguments.screenshots:
                arguments.screenshots.mkdir(parents=True, exist_ok=True)
                page.screenshot(arguments.screenshots / f"{name}.png")

        try:
            use(page, arguments, picture)
            if page.mistakes:
                raise Failed("; ".join(page.mistakes))
        except Failed as failed:
            picture("failed")
            print(f"failed: {failed}")
            return 1
        finally:
            page.close()
    print("the page works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
