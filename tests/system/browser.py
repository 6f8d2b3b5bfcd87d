"""The local page in a process of its own, and a real headless Chromium that looks at it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mosquitto import wait_for
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PHONE = (360, 740)
DESKTOP = (1280, 900)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required", "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


class Page:
    """`asd-agent web` for a configuration whose web.listen is `listen`."""

    def __init__(self, configuration: Path, listen: str, log: Path) -> None:
        self.configuration, self.url, self._log = configuration, f"http://{listen}", log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asd_agent", "web", "-c", str(self.configuration)],
                stdout=sink, stderr=sink, stdin=subprocess.DEVNULL,
                env={**os.environ, "XDG_STATE_HOME": str(self._log.parent)},
            )  # fmt: skip
        wait_for(self.answers, f"the page answers at {self.url}")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return True  # it answers that the daemon does not
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    @property
    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


class Browser:
    """What a person does with a page."""

    def __init__(self, url: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        options = Options()
        options.binary_location = str(CHROMIUM)
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.url = url
        self.resize(*size)
        if dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def close(self) -> None:
        self.driver.quit()

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def has(self, selector: str) -> bool:
        return bool(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def click(self, selector: str) -> None:
        self.until(lambda: self.has(selector) and self.find(selector).is_enabled(), f"{selector} can be clicked")
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, selector: str, words: str) -> None:
        self.find(selector).send_keys(words)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = 20.0) -> None:
        """Elements may be replaced while we look."""

        def quiet() -> bool:
            with contextlib.suppress(Exception):
                return condition()
            return False

        wait_for(quiet, what, patience_s)

    def until_text(self, selector: str, words: str, patience_s: float = 20.0) -> None:
        self.until(lambda: words in self.text(selector), f"{selector} says {words!r}", patience_s)

    def complaints(self) -> list[str]:
        """Errors of scripts and what the content security policy has stopped, since the last question."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def overflow(self) -> int:
        """Pixels that the page is wider than the window."""
        return int(self.run("return document.documentElement.scrollWidth - window.innerWidth"))

    def settled(self, seconds: float = 0.3) -> None:
        """Until scripts and pictures are there."""
        self.until(lambda: self.run("return document.readyState") == "complete", "the page is loaded")
        time.sleep(seconds)


@contextlib.contextmanager
def browser(url: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> Iterator[Browser]:
    made = Browser(url, size, dark=dark)
    try:
        yield made
    finally:
        made.close()
