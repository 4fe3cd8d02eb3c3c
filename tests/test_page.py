"""The web page of `captioning serve` in a real browser, against a real service."""

import base64
import hashlib
import io
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import browser
import local_site
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from local_site import Site
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from safetensors.torch import load_file, save_file
from served import Served, serve
from tiny_captioner import save_captioner

from captioning.collection import Collection
from captioning.serving.page_files import PAGE

expect.set_options(timeout=30_000)  # on a busy machine
WEB = Path(__file__).parents[1] / "web"
KEY = "correct-horse-battery-staple"
MAX_BYTES = 60_000
DIMMEST = 0.86  # opacity over what the model did not look at (web/src/Print.tsx)
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}

needs_browser = pytest.mark.skipif(
    browser.program() is None, reason=f"no browser here: none of {', '.join(browser.PROGRAMS)} is installed"
)


def picture(seed: int, side: int = 64) -> bytes:
    """Return a JPEG of coloured patches."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).resize((side, side * 3 // 4)).save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


def noise(side: int) -> bytes:
    """Return a PNG that cannot be compressed."""
    encoded = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def upload(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose attention is far from even, and a collection of two captioned pictures."""
    folder = tmp_path_factory.mktemp("service")
    for name, seed in (("champion", 3), ("challenger", 4)):
        weights = save_captioner(folder / name, seed) / "weights.safetensors"
        tensors = load_file(weights)
        factors = {"decoder.energy.weight": 60, "decoder.key.weight": 8}
        save_file({own: tensor * factors.get(own, 1) for own, tensor in tensors.items()}, weights)
    rows = []
    for number, caption in enumerate(["a red dog runs on sand", "a kite above the sea"]):
        path = folder / f"picture-{number}.jpg"
        path.write_bytes(picture(number))
        captions = [{"text": caption, "probability": 0.5}]
        rows.append({"image": str(path), "error": None, "captions": captions})
    states = {row["image"]: "1" for row in rows}
    Collection(folder / "collection").update(rows, states, "a test")  # type: ignore[arg-type]
    (folder / "keys").write_text(f"{KEY}\n")
    return folder


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A server that pictures are fetched from."""
    with local_site.serve() as found:
        yield found


@pytest.fixture(scope="module")
def service(folder: Path, site: Site) -> Iterator[Served]:
    options = [
        *("--model", str(folder / "champion")),
        *("--challenger", str(folder / "challenger")),
        *("--collection", str(folder / "collection")),
        *("--keys-file", str(folder / "keys")),
        *("--max-bytes", str(MAX_BYTES)),
        *("--body-seconds", "600", "--timeout-seconds", "600"),  # for a picture that is cancelled on its way
        *("--allowed-networks", "127.0.0.0/8", "--fetch-ports", f"80,443,{site.url.rpartition(':')[2]}"),
    ]
    with serve(*options, home=folder / "home") as running:
        running.url += "/"
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=browser.program(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@dataclass
class Visit:
    """A browser's window with nothing kept from before, and all that it complained of and asked for."""

    context: BrowserContext
    url: str
    complaints: list[str] = field(default_factory=list)
    addresses: set[str] = field(default_factory=set)

    def open(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda own: own.type in {"error", "warning"} and self.complaints.append(own.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda own: self.addresses.add(own.url))
        page.goto(self.url)
        page.locator(".tabs, .key").wait_for()
        return page

    def check(self) -> None:
        """See that all came from the service, and that the console is empty but for answers that were refusals."""
        local = (self.url, "blob:", "data:")
        assert [own for own in self.addresses if not own.startswith(local)] == []
        refusals = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")
        assert [own for own in self.complaints if not refusals.match(own)] == []


@pytest.fixture
def visit(chromium: Browser, service: Served) -> Iterator[Visit]:
    with chromium.new_context(viewport=DESK, reduced_motion="reduce") as context:  # type: ignore[arg-type]
        context.add_init_script(f"sessionStorage.setItem('captioning-key', '{KEY}')")
        own = Visit(context, service.url)
        yield own
        own.check()


def check_looks(page: Page) -> None:
    """See that axe finds nothing and that nothing is too wide, light and dark, on a desk and on a phone."""
    for scheme, options in (("dark", {"runOnly": ["color-contrast"]}), ("light", None)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        found = Axe().run(page, options=options).response["violations"]
        assert [(own["id"], own["nodes"][0]["html"]) for own in found] == []
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    wide = page.evaluate(
        """() => [...document.body.querySelectorAll("*")].filter((own) => !own.closest(".hidden, .skip")
           && own.getBoundingClientRect().right > innerWidth + 1).map((own) => own.outerHTML.slice(0, 200))"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.set_viewport_size(DESK)  # type: ignore[arg-type]


def add(page: Page, *uploads: Any) -> None:
    page.locator("input[type=file]").set_input_files(list(uploads))


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name)


def words(own: Locator, caption: int = 0) -> Locator:
    return own.get_by_role("radiogroup").nth(caption).get_by_role("radio")


def answered(service: Served, content: bytes, **wishes: Any) -> Any:
    """Return what the service says of a picture to a program."""
    images = [{"base64": base64.b64encode(content).decode()}]
    body = json.dumps({"images": images, "attention": True, "top": 3} | wishes).encode()
    request = urllib.request.Request(
        service.url + "captions", body, {"Content-Type": "application/json", "X-API-Key": KEY}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)["images"][0]["answers"]


def opacities(own: Locator) -> np.ndarray:
    """Return how dark the light's canvas is at the middle of each of 4 x 4 cells, 0..1."""
    values = own.locator("canvas").evaluate(
        """(canvas) => {
          const {width, height} = canvas;
          const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
          const at = (row, column) => data[4 * ((row + 0.5) * height / 4 * width + (column + 0.5) * width / 4) + 3];
          return [0, 1, 2, 3].map((row) => [0, 1, 2, 3].map((column) => at(row, column) / 255));
        }"""
    )
    return np.array(values)


def test_the_page_comes_with_a_strict_policy_and_may_be_kept_while_it_is_the_same(service: Served) -> None:
    with urllib.request.urlopen(service.url, timeout=20) as answer:
        policy = answer.headers["Content-Security-Policy"]
        tag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "no-cache"
    assert "script-src 'self';" in policy and "style-src 'self';" in policy and "unsafe" not in policy
    again = urllib.request.Request(service.url, headers={"If-None-Match": tag})
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(again, timeout=20)


@needs_browser
def test_a_chosen_picture_becomes_captions_with_their_probabilities(visit: Visit, service: Served) -> None:
    page = visit.open()
    check_looks(page)
    add(page, upload("beach.jpg", picture(1)), upload("park.jpg", picture(2)))
    for name, seed in (("beach.jpg", 1), ("park.jpg", 2)):
        own = card(page, name)
        expect(own.get_by_role("listitem")).to_have_count(3)
        (answer,) = answered(service, picture(seed))
        for number, caption in enumerate(answer["captions"]):
            assert words(own, number).all_inner_texts() == caption["words"]
            said = own.get_by_role("listitem").nth(number).locator(".probability").inner_text()
            stated = said.rpartition("\n")[2]
            if caption["probability"] >= 1e-6:
                assert float(stated.rstrip("%")) / 100 == pytest.approx(caption["probability"], rel=0.06)
            else:
                assert stated == "under 0.0001%"
        assert own.get_by_role("img").get_attribute("alt") == answer["captions"][0]["text"]
        expect(page.get_by_role("log")).to_contain_text(f"{name}: {answer['captions'][0]['text']}")
    check_looks(page)


@needs_browser
def test_pointing_at_a_word_lights_the_picture_where_the_model_looked(visit: Visit, service: Served) -> None:
    page = visit.open()
    add(page, upload("beach.jpg", picture(1)))
    own = card(page, "beach.jpg")
    caption = answered(service, picture(1))[0]["captions"][1]
    word = words(own, 1).nth(2)
    word.hover()
    attention = np.array(caption["attention"]["weights"][2])
    assert attention.max() > 2 * attention.min()
    expected = DIMMEST * (1 - attention / attention.max())
    np.testing.assert_allclose(opacities(own), expected.reshape(4, 4), atol=0.1)
    box, drawn = own.get_by_role("img").bounding_box(), own.locator("canvas").bounding_box()
    assert box == drawn
    check_looks(page)
    page.mouse.move(2, 2)
    expect(own.locator("canvas")).to_have_count(0)
    word.click()  # a tap keeps it
    page.mouse.move(2, 2)
    expect(own.locator("canvas")).to_have_count(1)
    expect(own.locator(".looked")).to_have_text(re.compile(rf"^{caption['words'][2]}: looked "))
    word.click()
    page.mouse.move(2, 2)
    expect(own.locator("canvas")).to_have_count(0)


@needs_browser
def test_the_page_is_used_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    _tab_to(page, page.get_by_role("button", name="Choose pictures"))
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([upload("beach.jpg", picture(1))])
    own = card(page, "beach.jpg")
    words(own).first.wait_for()
    _tab_to(page, words(own).first)
    expect(own.locator("canvas")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(words(own).nth(1)).to_be_focused()
    assert re.search(": looked (at the|all over)", words(own).nth(1).get_attribute("aria-label") or "")
    page.keyboard.press("Tab")  # one stop a caption
    expect(own.get_by_role("button", name="Copy alt text").first).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(words(own).nth(1)).to_be_focused()
    _tab_to(page, own.get_by_role("button", name="Remove beach.jpg"), backwards=True)
    page.keyboard.press("Enter")
    expect(own).to_have_count(0)
    _tab_to(page, page.get_by_role("tab", name="Caption"), backwards=True)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Search")).to_be_focused()
    expect(page.get_by_role("searchbox")).to_be_visible()


def _tab_to(page: Page, target: Locator, *, backwards: bool = False) -> None:
    for _ in range(30):
        if target.evaluate("(own) => own === document.activeElement"):
            return
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
    raise AssertionError(f"the keyboard does not reach {target}")


@needs_browser
def test_a_file_that_is_no_picture_is_refused_with_what_to_do_and_can_be_tried_again(visit: Visit) -> None:
    page = visit.open()
    add(page, upload("notes.jpg", b"these are notes" * 9), upload("beach.jpg", picture(1)))
    own = card(page, "notes.jpg")
    expect(own.locator(".refusal")).to_contain_text("it begins with b'these are notes")
    expect(page.get_by_role("log")).to_contain_text("notes.jpg: ")
    words(card(page, "beach.jpg")).first.wait_for()  # the other is captioned all the same
    check_looks(page)
    with page.expect_response("**/captions"):
        own.get_by_role("button", name="Try again").click()
    expect(own.locator(".refusal")).to_be_visible()


@needs_browser
def test_an_address_that_may_not_be_read_is_refused_with_the_reason(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Or the address of a picture").fill("http://10.0.0.1/secret.jpg")
    page.get_by_role("button", name="Caption it").click()
    own = card(page, "http://10.0.0.1/secret.jpg")
    expect(own.locator(".refusal")).to_contain_text("10.0.0.1")
    check_looks(page)


@needs_browser
def test_a_picture_of_an_address_is_shown_though_nothing_is_loaded_from_there(
    visit: Visit, site: Site
) -> None:
    site.files["beach.jpg"] = picture(1)
    page = visit.open()
    page.get_by_label("Or the address of a picture").fill(f"{site.url}/file/beach.jpg")
    page.keyboard.press("Enter")
    own = card(page, f"{site.url}/file/beach.jpg")
    expect(words(own).first).to_be_visible()
    assert own.get_by_role("img").evaluate("(own) => own.naturalWidth") == 64
    assert own.get_by_role("img").get_attribute("src").startswith("data:image/jpeg")  # type: ignore[union-attr]


@needs_browser
def test_a_picture_beyond_the_limit_is_not_sent_but_scaled_down_if_asked(visit: Visit) -> None:
    page = visit.open()
    content = noise(300)
    assert len(content) > MAX_BYTES
    add(page, upload("poster.jpg", content))
    own = card(page, "poster.jpg")
    expect(own.locator(".refusal")).to_contain_text("takes at most 60 kB")
    check_looks(page)
    with page.expect_request("**/captions") as asked:
        own.get_by_role("button", name="Scale it down here").click()
    expect(words(own).first).to_be_visible()
    assert len(asked.value.post_data_buffer or b"") < MAX_BYTES + 2000


@needs_browser
def test_champion_and_challenger_stand_side_by_side(visit: Visit, service: Served) -> None:
    page = visit.open()
    page.get_by_role("checkbox", name="challenger").check(force=True)
    add(page, upload("beach.jpg", picture(1)))
    own = card(page, "beach.jpg")
    expect(own.locator(".answer")).to_have_count(2)
    answers = answered(service, picture(1), models=["champion", "challenger"])
    for place, answer in enumerate(answers):
        column = own.locator(".answer").nth(place)
        expect(column.get_by_role("heading")).to_have_text(re.compile(f"^{answer['model']} "))
        assert words(column).all_inner_texts() == answer["captions"][0]["words"]
    left, right = (own.locator(".answer").nth(place).bounding_box() for place in (0, 1))
    assert left is not None and right is not None and left["y"] == right["y"] and left["x"] < right["x"]
    check_looks(page)


@needs_browser
def test_the_models_in_service_are_named(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="In service: champion").click()
    expect(page.get_by_role("heading", name="challenger: challenger")).to_be_visible()
    check_looks(page)


@needs_browser
def test_pictures_come_by_drop_and_by_paste(visit: Visit) -> None:
    page = visit.open()
    carried = """(own, [kind, encoded]) => {
      const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
      const carried = new DataTransfer();
      carried.items.add(new File([bytes], kind + ".jpg", {type: "image/jpeg"}));
      const rest = {clipboardData: carried, dataTransfer: carried, bubbles: true, cancelable: true};
      own.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, rest) : new DragEvent(kind, rest));
    }"""
    encoded = base64.b64encode(picture(1)).decode()
    page.locator("body").evaluate(carried, ["paste", encoded])
    page.locator("body").evaluate(carried, ["drop", encoded])
    for name in ("paste.jpg", "drop.jpg"):
        expect(words(card(page, name)).first).to_be_visible()
    text = """(own) => {
      const carried = new DataTransfer();
      carried.setData("text/plain", "good morning");
      own.dispatchEvent(new ClipboardEvent("paste", {clipboardData: carried, bubbles: true, cancelable: true}));
    }"""
    page.locator("body").evaluate(text)
    expect(page.get_by_role("log")).to_contain_text("There is no picture in what you pasted")


@needs_browser
def test_a_picture_on_its_way_can_be_cancelled(visit: Visit) -> None:
    page = visit.open()
    page.context.set_offline(False)
    slow = page.context.new_cdp_session(page)
    slow.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100}
    slow.send("Network.emulateNetworkConditions", limits)
    add(page, upload("beach.jpg", noise(100)))
    own = card(page, "beach.jpg")
    expect(own.get_by_role("progressbar")).to_be_visible()
    check_looks(page)
    own.get_by_role("button", name="Cancel beach.jpg").click()
    expect(own.locator(".refusal")).to_contain_text("Cancelled")
    slow.send("Network.emulateNetworkConditions", limits | {"uploadThroughput": -1})
    own.get_by_role("button", name="Try again").click()
    expect(words(own).first).to_be_visible()
    visit.complaints.clear()


@needs_browser
def test_the_alt_text_is_copied(visit: Visit, service: Served) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.open()
    add(page, upload("beach.jpg", picture(1)))
    card(page, "beach.jpg").get_by_role("button", name="Copy alt text").first.click()
    expect(page.get_by_role("log")).to_contain_text("Copied: ")
    text = answered(service, picture(1))[0]["captions"][0]["text"]
    assert page.evaluate("navigator.clipboard.readText()") == text


@needs_browser
def test_search_marks_what_it_found(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("tab", name="Search").click()
    page.get_by_role("searchbox").fill("running dogs")
    expect(page.locator("mark")).to_have_text(["dog", "runs"])
    found = page.get_by_role("img", name="a red dog runs on sand")
    expect(found).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert found.evaluate("(own) => own.naturalWidth") > 0
    expect(page.get_by_role("log")).to_contain_text("1 picture found")
    check_looks(page)
    assert page.url.endswith("#search?q=running+dogs")
    page.reload()
    expect(page.locator("mark")).to_have_count(2)
    page.get_by_role("searchbox").fill("zebra")
    expect(page.get_by_text("No caption has these words")).to_be_visible()


@needs_browser
def test_the_history_hears_of_new_captions_outlives_a_reload_and_can_be_cleared(visit: Visit) -> None:
    page = visit.open()
    add(page, upload("beach.jpg", picture(1)), upload("park.jpg", picture(2)))
    page.get_by_role("tab", name="History").click()
    expect(page.get_by_text("2 pictures captioned in this browser")).to_be_visible()
    page.reload()
    own = card(page, "beach.jpg")
    expect(own.get_by_role("img")).to_be_visible()
    words(own).first.hover()
    expect(own.locator("canvas")).to_have_count(1)
    check_looks(page)
    own.get_by_role("button", name="Remove beach.jpg from the history").click()
    expect(own).to_have_count(0)
    page.get_by_role("button", name="Clear the history").click()
    page.get_by_role("button", name="Remove 1 picture for good").click()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    check_looks(page)
    page.reload()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()


@needs_browser
def test_colours_are_the_systems_until_others_are_chosen(visit: Visit) -> None:
    page = visit.open()
    wall = "getComputedStyle(document.documentElement).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(wall)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(wall)
    assert light != dark
    page.get_by_role("radio", name="Light").click()
    assert page.evaluate(wall) == light
    page.reload()
    page.get_by_role("heading", name="What is in the picture").wait_for()
    assert page.evaluate(wall) == light


@needs_browser
def test_a_service_with_keys_asks_for_one(chromium: Browser, service: Served) -> None:
    with chromium.new_context(viewport=DESK) as context:  # type: ignore[arg-type]
        own = Visit(context, service.url)
        page = own.open()
        asked = page.get_by_label("API key")
        asked.wait_for()
        check_looks(page)
        asked.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).not_to_have_text("This service asks for a key.")
        asked.fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Choose pictures").wait_for()
        add(page, upload("beach.jpg", picture(1)))
        expect(words(card(page, "beach.jpg")).first).to_be_visible()
        own.check()


@needs_browser
def test_a_service_that_is_away_is_said(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="Choose pictures").wait_for()
    page.context.set_offline(True)
    add(page, upload("beach.jpg", picture(1)))
    own = card(page, "beach.jpg")
    expect(own.locator(".refusal")).to_contain_text("The service did not answer.")
    page.context.set_offline(False)
    own.get_by_role("button", name="Try again").click()
    expect(words(own).first).to_be_visible()
    visit.complaints.clear()


@needs_browser
def test_the_page_of_the_http_interface_loads_nothing_from_elsewhere(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("link", name="For programs").click()
    page.get_by_role("button", name="POST /captions").first.click()
    expect(page.get_by_role("button", name="Try it out")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= DESK["width"]


@pytest.mark.parametrize("name", ["index.html", "docs/index.html"])
def test_the_pages_own_files_need_no_exception_of_a_strict_policy(name: str) -> None:
    html = (PAGE / name).read_text()
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html) == []
    loaded = re.findall(r'<(?:script|link)[^>]*\s(?:src|href)="([^"]+)"', html)
    assert len(loaded) > 3
    assert [own for own in loaded if not ((PAGE / name).parent / own).is_file()] == []


def test_the_page_is_small_and_has_all_that_it_names() -> None:
    named = re.findall(r"url\(([^)]+)\)", (PAGE / "index.css").read_text())
    assert named
    assert [own for own in named if not (PAGE / own).is_file()] == []
    assert list(PAGE.rglob("*.map")) == []
    assert sum(own.stat().st_size for own in PAGE.glob("*")) < 1_000_000


def test_the_built_page_belongs_to_its_sources() -> None:
    ignored = {"node_modules"}
    paths = [own for own in WEB.rglob("*") if own.is_file() and not ignored & set(own.relative_to(WEB).parts)]
    sums = {own.relative_to(WEB).as_posix(): hashlib.sha256(own.read_bytes()).hexdigest() for own in paths}
    stated = dict(
        reversed(line.split("  ", 1)) for line in (PAGE / "sources.sha256").read_text().splitlines()
    )
    assert stated == sums, "captioning/serving/page is older than web/: run `make page` and commit both"


def test_the_packages_of_the_page_are_licensed_openly() -> None:
    text = (PAGE / "licenses.md").read_text()
    named = re.findall(r"^## (\S+) - \S+ \(([^)]+)\)", text, re.MULTILINE)
    assert {"react", "react-aria-components", "idb"} <= {name for name, _ in named}
    assert {license for _, license in named} <= {"MIT", "Apache-2.0", "ISC", "0BSD", "OFL-1.1"}
