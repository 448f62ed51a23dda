"""The page as people use it, in a real browser."""

import re
import threading
import time

import pytest

from fakes import aiming

# The first block sounds for 19 s: longer than a busy machine takes to look.
THREE_BLOCKS = ("preset.block_sizes=[400,40,40]", "preset.num_steps=[1,1,1]")
AUDIBLE = 0.001
TEXT = "Good morning. The kettle is on."
# Of what the media element plays, not of what it was given.
LOUDNESS = """async () => {
  const audio = document.querySelector("#echo-audio");
  if (audio.paused || !audio.currentTime) return 0;
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(audio.captureStream()).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let loudest = 0;
  for (let i = 0; i < 20; i++) {
    await new Promise((done) => setTimeout(done, 25));
    analyser.getFloatTimeDomainData(samples);
    loudest = Math.max(loudest, ...samples.map(Math.abs));
  }
  await context.close();
  return loudest;
}"""


@pytest.fixture
def tabs(browser):
    """Open addresses in browsers of their own; gives their pages, which keep their complaints."""
    contexts = []

    def open_tab(url, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_tab
    for context in contexts:
        context.close()


@pytest.fixture
def visit(tabs, serve, add_voice):
    """Open the page; gives the browser's page and the engine."""

    def start(*overrides, query="", components=None, **options):
        engine, url = serve(*overrides, components=components)
        page = tabs(url + query, **options)
        page.locator("#text textarea").wait_for()
        return page, engine

    add_voice("anna")
    add_voice("bert")
    return start


def speak(page, text, seed):
    page.locator("#text textarea").fill(text)
    page.locator("#seed input").fill(str(seed))
    page.locator("#speak").click()


def pick(page, field, value):
    page.locator(f"#{field} input").click()
    page.locator(f"#{field} input").fill(value)
    page.get_by_role("option", name=value).click()
    until(lambda: page.locator(f"#{field} input").input_value() == value, f"{value} is not picked")


def wait_for_state(page, state):
    page.locator(f'.stage[data-state="{state}"]').wait_for()


def until(check, what):
    deadline = time.monotonic() + 60
    while not (found := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


@pytest.fixture
def gate():
    """Shut until it is set; at the end it is."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def gated(toy_components, gate):
    """Networks that make noise, and after the first block wait at the gate."""

    def aim(start, noise):
        if start > 0:
            gate.wait()
        return noise

    return aiming(toy_components, aim)


def test_a_visitor_speaks_hears_stops_compares_votes_and_restores(visit, gate, gated):
    page, engine = visit(*THREE_BLOCKS, components=gated)
    pick(page, "voice", "bert")
    page.locator("#advanced button").first.click()  # whose fields change nothing by being shown
    page.locator("#vad-max-rerolls input").wait_for()
    speak(page, TEXT, 7)
    until(lambda: page.evaluate(LOUDNESS) > AUDIBLE, "nothing was heard")
    assert page.locator(".stage").get_attribute("data-state") == "busy"
    gate.set()
    wait_for_state(page, "done")
    assert page.locator("#status").inner_text().startswith("Done: 22.3 s")
    figures = page.locator(".stage .figures").inner_text()
    assert re.search(r"TTFB\s+\d+\.\d\d s", figures)
    assert re.search(r"Seed\s+7", figures)

    gate.clear()
    speak(page, "This one is not heard to its end.", 8)
    until(lambda: page.evaluate(LOUDNESS) > AUDIBLE, "nothing was heard of the second run")
    page.locator("#stop").click()
    assert page.evaluate("document.querySelector('#echo-audio').paused")
    wait_for_state(page, "stopped")
    gate.set()
    until(lambda: engine.stats()["active"] == 0, "the second run goes on")

    page.locator("#text textarea").fill("Which one is better?")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare").click()
    page.locator("#compare-status", has_text="Done: 2 of 2 made").wait_for()
    assert page.locator("#grid .tile h4").all_inner_texts() == ["preset default", "preset equal"]
    page.locator("#blind").click()
    page.locator("#pair h4").nth(1).wait_for()
    assert page.locator("#pair h4").all_inner_texts() == ["A", "B"]
    page.locator("#grid").wait_for(state="hidden")
    page.locator("#vote-a").click()
    page.locator("#results .standing").nth(1).wait_for()
    assert "1 vote" in page.locator("#results").inner_text()
    assert page.locator("#results .standing").first.inner_text().endswith("1 of 1")

    page.get_by_role("tab", name="History").click()
    page.locator("#history .card").nth(1).wait_for()
    assert page.locator("#history .chips").last.inner_text().split("\n")[1:3] == ["bert", "seed 7"]
    page.locator("#history .card", has_text=TEXT).get_by_role("button", name="Restore").click()
    page.locator("#speak").wait_for(state="visible")
    for field, value in (("text textarea", TEXT), ("seed input", "7"), ("voice input", "bert")):
        until(lambda f=field, v=value: page.locator(f"#{f}").input_value() == v, f"no {value}")
    assert page.complaints == []


def test_a_link_fills_the_fields_and_the_keyboard_speaks(visit):
    page, _ = visit(query="?text=Hello+there.&voice=bert&seed=3&cfg_scale_text=4.5")
    until(lambda: page.locator("#text textarea").input_value() == "Hello there.", "not filled in")
    assert page.locator("#voice input").input_value() == "bert"
    page.locator("#text textarea").press("Control+Enter")
    wait_for_state(page, "done")
    page.locator("#link").click()
    until(lambda: "seed=3" in page.url and "cfg_scale_text=4.5" in page.url, page.url)


def test_a_wrong_link_is_told_and_the_keyboard_leaves_no_list_open(visit):
    page, _ = visit(query="?text=Hello.&seed=many")
    wait_for_state(page, "error")
    assert page.locator("#status").inner_text().startswith("Seed is 'many' in the link; it must be")
    page.locator("#voice input").focus()
    page.get_by_role("option", name="anna").wait_for()
    page.keyboard.press("Tab")
    page.get_by_role("option", name="anna").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.id") == "listen"


def test_a_mistake_is_told_as_a_sentence_and_a_phone_has_room_for_it(visit):
    page, _ = visit(viewport={"width": 375, "height": 740}, color_scheme="dark")
    page.locator("#speak").click()
    wait_for_state(page, "error")
    assert page.locator("#status").inner_text() == "The text is empty."
    for tab in ("Compare", "Voices", "History", "Speak"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, tab
    assert page.complaints == []


def test_a_block_that_comes_late_is_heard_to_its_end(visit):
    page, _ = visit("preset.block_sizes=[10,40]", "preset.num_steps=[1,150]")
    speak(page, TEXT, 7)
    wait_for_state(page, "done")
    until(
        lambda: (
            page.locator(".stage .time").inner_text() == "0:02 / 0:02"
            and page.locator(".stage .play").get_attribute("aria-label") == "Play the clip"
        ),
        "it did not play to its end",
    )


def test_at_ui_on_the_server_a_visitor_logs_in_and_speaks_and_is_told_when_it_is_gone(
    tabs, served, gate, gated, add_voice
):
    add_voice("anna")
    settings = ("server.api_keys=a-key", "ui.password=open-sesame", *THREE_BLOCKS)
    _, client, server = served(*settings, components=gated)
    page = tabs(f"{client.base_url}/ui")
    page.get_by_label("username").fill("me")
    page.get_by_label("password").fill("open-sesame")
    page.get_by_role("button", name="Login").click()
    page.locator("#text textarea").wait_for()
    speak(page, TEXT, 7)
    until(lambda: page.evaluate(LOUDNESS) > AUDIBLE, "nothing was heard")
    assert page.locator(".stage").get_attribute("data-state") == "busy"
    server.should_exit = True
    wait_for_state(page, "error")
    assert "The connection to the server is lost" in page.locator("#status").inner_text()
    assert page.complaints == []
