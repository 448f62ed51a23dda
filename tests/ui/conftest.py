"""Pages over toy engines, and a browser to open them in."""

import contextlib
import shutil
import socket
import threading
import time

import httpx
import numpy as np
import pytest
import soundfile

from echo.api.app import create_app
from echo.api.server import EchoServer, bind
from echo.ui.launch import ServedPage, open_page
from echo.ui.session import Session
from echo.ui.shelf import Shelf

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def session():
    return Session(Shelf())


@pytest.fixture
def add_voice(voice_root):
    """Put some noise, another for each name, into the voices' folder."""

    def add(name, seconds=1.0):
        chance = np.random.default_rng(list(name.encode()))
        noise = chance.uniform(-0.5, 0.5, int(44_100 * seconds))
        soundfile.write(voice_root / f"{name}.wav", noise.astype(np.float32), 44_100)

    return add


@pytest.fixture
def serve(make_engine, monkeypatch, tmp_path):
    """Serve a page; gives its engine and URL. Gradio's files stay in the test's folder."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    pages = []

    def start(*overrides, components=None):
        engine = make_engine(f"ui.port={free_port()}", *overrides, components=components)
        page, url = open_page(engine)
        pages.append(page)
        return engine, url

    yield start
    for page in pages:
        page.close(verbose=False)


@contextlib.contextmanager
def serving(engine):
    """The API of ``engine`` with the page in it, on a free port; gives the server."""
    page = ServedPage()
    with bind(engine.config.server) as listener:
        app = create_app(engine, engine.config)
        page.mount(app, engine)
        server = EchoServer(app, listener, page)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.02)
            yield server
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def served(make_engine, monkeypatch, tmp_path):
    """Serve API and page with some overrides; gives the engine, a client and the server."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with contextlib.ExitStack() as stack:

        def start(*overrides, components=None):
            engine = make_engine("server.port=0", *overrides, components=components)
            server = stack.enter_context(serving(engine))
            client = httpx.Client(base_url=server.url, timeout=20)
            return engine, stack.enter_context(client), server

        yield start


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one, or without Playwright, the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs a chromium: apt-get install chromium")
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(playwright.sync_playwright())
        # No sandbox: containers that run as root allow none.
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        stack.callback(opened.close)
        yield opened
