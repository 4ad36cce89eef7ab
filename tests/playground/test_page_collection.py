"""The Collection tab in a browser: the map, the list, searches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from browser import (
    ROOT,
    PlaygroundProcess,
    axe_violations,
    choose_file,
    open_page,
    select_tab,
)

pytestmark = pytest.mark.slow

SPEECH = ROOT / "examples" / "speech.flac"
SHOWN = "[data-panel=collection][data-points][data-colour]"


@pytest.fixture
def shown(page: Any) -> Any:
    """The page with the tab open, the map drawn and the rows' names read."""
    select_tab(page, "Collection")
    page.wait_for_selector(SHOWN)
    page.wait_for_selector("[data-rows] small")
    return page


def names(page: Any) -> list[str]:
    return list(page.locator("[data-rows] b").all_inner_texts())


def place(page: Any, index: int) -> dict[str, float]:
    """The pixel of a point on the canvas."""
    x, y = page.evaluate("(k) => playground.collectionMap.place_of(k)", index)
    return {"x": x, "y": y}


def test_the_map_and_the_list_are_linked(shown: Any, music: qa.Collection) -> None:
    rows = music.rows()
    canvas = shown.locator(".pg-map canvas")
    canvas.scroll_into_view_if_needed()
    made = music.map(method="pca").points
    pixels = np.array([list(place(shown, k).values()) for k in range(len(rows))])
    across = (pixels - pixels[0]) / (made - made[0])[-1]  # the same scale on both axes
    assert across[-1][0] == pytest.approx(-across[-1][1], rel=0.01)
    assert names(shown) == rows.file_names
    for index, name in enumerate(rows.file_names):
        canvas.hover(position=place(shown, index))
        hint = shown.locator(".pg-map .pg-hint")
        shown.wait_for_function(
            "(name) => document.querySelector('.pg-map .pg-hint').textContent.startsWith(name)",
            arg=name,
        )
        assert hint.is_visible()
        assert shown.locator("[data-rows] [data-hovered] b").inner_text() == name
        canvas.click(position=place(shown, index))
        shown.wait_for_function(
            """(name) => playground.player.sources.row?.name === name
               && !playground.player.audio.paused""",
            arg=name,
        )
        assert shown.inner_text("[data-chosen-name]").startswith(name)
        assert shown.inner_text("[data-rows] [aria-selected=true] b") == name
        assert shown.inner_text("[data-rows] [data-playing] b") == name
        assert shown.evaluate("() => playground.collectionMap.marks.playing") == index
    shown.locator("[data-rows] [data-index='0']").hover()
    shown.wait_for_function("() => playground.collectionMap.marks.hovered === 0")
    assert str(ROOT) not in shown.content()  # names of files without folders


def test_brushing_the_map_filters_the_list_and_the_filter_dims_the_map(
    shown: Any, music: qa.Collection
) -> None:
    canvas = shown.locator(".pg-map canvas")
    canvas.scroll_into_view_if_needed()
    box, point = canvas.bounding_box(), place(shown, 1)
    x, y = box["x"] + point["x"], box["y"] + point["y"]
    shown.keyboard.down("Shift")
    shown.mouse.move(x - 9, y - 9)
    shown.mouse.down()
    shown.mouse.move(x + 9, y + 9, steps=3)
    shown.mouse.up()
    shown.keyboard.up("Shift")
    shown.wait_for_selector("[data-panel=collection][data-shown='1']")
    wait_for_names(shown, [music.rows().file_names[1]])
    assert shown.inner_text("[data-kept-text]") == "1 of 3 rows: selected on the map"
    assert shown.evaluate("() => [...playground.collectionMap.kept]") == [0, 1, 0]
    shown.click("[data-show-all]")
    shown.wait_for_selector("[data-panel=collection][data-shown='3']")
    assert not shown.locator("[data-show-all]").is_visible()  # nothing is left to be undone

    shown.fill("[data-filter]", "SPEECH.flac")
    shown.wait_for_selector("[data-panel=collection][data-shown='1']")
    wait_for_names(shown, ["speech.flac"])
    assert shown.evaluate("() => [...playground.collectionMap.kept]") == [0, 0, 1]
    shown.fill("[data-filter]", "nothing has this")
    shown.wait_for_selector("[data-panel=collection][data-shown='0']")
    shown.wait_for_function(
        "() => document.querySelector('[data-rows]').innerText === 'No row fits.'"
    )
    assert shown.locator("[data-sequence]").is_disabled()


def test_colours_and_their_legend(shown: Any, music: qa.Collection) -> None:
    options = shown.locator("select[data-colour] option")
    columns = dict(
        zip(
            options.evaluate_all("all => all.map(o => o.value)"),
            options.all_inner_texts(),
            strict=True,
        )
    )
    assert {"__proto__", "<!--<script>", "12"} <= set(columns)
    assert not {"source", "source_bytes", "content_hash"} & set(columns)
    for column in ("__proto__", "<!--<script>", "12"):
        shown.select_option("select[data-colour]", column)
        shown.wait_for_selector(f'[data-panel=collection][data-colour="{column}"]')
        kinds = shown.locator("[data-legend] button span").all_inner_texts()
        assert kinds == sorted(set(music.rows().column(column).to_pylist()))
    shown.locator("[data-legend] button").nth(1).click()
    shown.wait_for_selector("[data-panel=collection][data-shown='1']")
    assert shown.locator("[data-legend] button[aria-pressed=true]").count() == 1
    shown.locator("[data-legend] button").nth(1).click()
    shown.wait_for_selector("[data-panel=collection][data-shown='3']")
    shown.select_option("select[data-colour]", "duration_seconds")
    shown.wait_for_selector("[data-panel=collection][data-colour='duration_seconds']")
    seconds = music.rows().column("duration_seconds").to_pylist()
    ends = shown.locator("[data-legend] b").all_inner_texts()
    shown_ends = [float(text.removesuffix(" s")) for text in ends]
    assert shown_ends == pytest.approx([min(seconds), max(seconds)], rel=0.01)
    assert "colour=duration_seconds" in shown.url


def test_sorting(shown: Any, music: qa.Collection) -> None:
    rows = music.rows()
    shown.select_option("[data-sort]", "duration_seconds")
    expected = [rows.file_names[k] for k in rows.order("duration_seconds")]
    wait_for_names(shown, expected)
    shown.click("[data-direction]")
    wait_for_names(shown, expected[::-1])


def wait_for_names(page: Any, expected: list[str]) -> None:
    page.wait_for_function(
        """(names) => [...document.querySelectorAll('[data-rows] b')].map((b) => b.textContent)
           .join() === names.join()""",
        arg=expected,
    )


def test_search_leaves_out_the_recording_itself(shown: Any, music: qa.Collection) -> None:
    choose_file(shown, SPEECH)  # an upload
    select_tab(shown, "Collection")
    shown.click("[data-by-clip]")
    shown.wait_for_selector("[data-panel=collection][data-found]")
    hits = music.search(SPEECH)
    wait_for_names(shown, [hit.name for hit in hits])
    assert "speech.flac" not in names(shown)
    scores = shown.locator("[data-rows] .pg-row-value").all_inner_texts()
    assert scores == [f"{hit.score:.3f}" for hit in hits]
    assert shown.inner_text("[data-list-title]") == "Similar to speech.flac"
    assert "Left out: the recording itself." in shown.inner_text("[data-score-note]")
    found = shown.evaluate("() => [...playground.collectionMap.marks.found]")
    assert found == [music.rows().index_of(hit.source, hit.window) for hit in hits]
    shown.check("[data-include-self]")
    shown.click("[data-by-clip]")
    wait_for_names(shown, [hit.name for hit in music.search(SPEECH, include_self=True)])


def test_search_by_words(shown: Any, music: qa.Collection) -> None:
    shown.fill("[data-text]", "drums")
    shown.press("[data-text]", "Enter")
    wait_for_names(shown, [hit.name for hit in music.search(caption="drums")])
    shown.fill("[data-text]", "zebra")
    shown.press("[data-text]", "Enter")
    status = shown.locator("[data-panel=collection] [data-status]")
    shown.wait_for_selector("[data-panel=collection] [data-status][data-kind=note]")
    assert status.inner_text() == "No caption contains these words: try others."
    assert not shown.locator("[data-show-all]").is_visible()


def test_neighbours_of_a_row_by_keyboard_and_where_it_opens(
    shown: Any, music: qa.Collection
) -> None:
    rows = music.rows()
    shown.locator("[data-rows]").focus()
    shown.keyboard.press("End")
    shown.wait_for_selector("[data-acts]:visible")
    last = len(rows) - 1
    active = shown.get_attribute("[data-rows]", "aria-activedescendant")
    assert active == f"pg-row-{last}"
    shown.click("[data-act=nearest]")
    hits = music.search(like=f"{rows[last]['source']}#0")
    wait_for_names(shown, [hit.name for hit in hits])
    shown.keyboard.press("Enter")  # the button has the focus: the same search again
    shown.click("[data-act=audio]")
    shown.wait_for_selector("[data-panel=audio]:not([hidden])")
    clip = shown.evaluate("() => playground.clip")
    assert (clip["name"], clip["row"]) == (rows.file_names[last], rows.id(last))
    assert f"row={rows.id(last)}" in shown.url
    select_tab(shown, "Collection")
    shown.click("[data-act=hidden_states]")
    shown.wait_for_selector("[data-panel=hidden_states]:not([hidden])")


def test_the_map_by_keyboard(shown: Any) -> None:
    canvas = shown.locator(".pg-map canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    assert shown.evaluate("() => playground.collectionMap.marks.selected") == 0
    reached = {0}
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown") * 3:
        canvas.press(key)
        reached.add(shown.evaluate("() => playground.collectionMap.marks.selected"))
    assert len(reached) > 1
    canvas.press("+")
    zoomed = shown.evaluate("() => playground.collectionMap.view.zoom")
    assert zoomed == pytest.approx(1.5)
    shown.click("[data-in-view]")
    kept = shown.evaluate("() => playground.collectionMap.kept?.includes(1)")
    assert kept
    canvas.press("0")
    assert shown.evaluate("() => playground.collectionMap.view.zoom") == 1


def test_rows_are_played_in_sequence(shown: Any, music: qa.Collection) -> None:
    first, second = music.rows().file_names[:2]
    shown.click("[data-sequence]")
    playing = (
        "(name) => document.querySelector('[data-rows] [data-playing] b')?.textContent === name"
    )
    shown.wait_for_function(playing, arg=first)
    assert shown.inner_text("[data-sequence]") == "Stop"
    shown.wait_for_function("() => !playground.player.audio.paused")
    shown.evaluate("() => { playground.player.audio.currentTime = 999; }")  # to its end
    shown.wait_for_function(playing, arg=second)
    shown.click("[data-sequence]")
    shown.wait_for_function("() => playground.player.audio.paused")
    assert shown.inner_text("[data-sequence]") == "Play in sequence"


def test_many_rows_are_few_elements(shown: Any) -> None:
    """The list and the map with a million rows, which are not read."""
    shown.evaluate(
        """() => {
            const place = document.querySelector('[data-rows]').cloneNode();
            place.id = 'many';
            document.querySelector('[data-list]').append(place);
            window.many = new playground.RowList(place, {
                get: (index) => ({ index, name: `row ${index}`, start: 0, end: 1, columns: [] }),
                want: () => {}, value: () => '', select: () => {}, hover: () => {} });
            many.show(Int32Array.from({ length: 1e6 }, (_, k) => k));
        }"""
    )
    shown.wait_for_selector("#many [data-index='0']")
    assert shown.locator("#many [role=row]").count() < 40
    shown.evaluate("() => many.place.scrollTo(0, 1e9)")
    shown.wait_for_selector("#many [data-index='999999']")
    box = shown.evaluate(
        """() => {
            const last = document.querySelector("#many [data-index='999999']");
            const [place, row] = [many.place, last].map((each) => each.getBoundingClientRect());
            return [place.top, place.bottom, row.top, row.bottom]; }"""
    )
    assert box[0] <= box[2] < box[3] <= box[1] + 2
    shown.evaluate("() => many.reveal(500000)")
    shown.wait_for_selector("#many [data-index='500000']")


def test_every_colour_has_contrast_to_its_ground(shown: Any) -> None:
    """3:1 for graphics (WCAG 2.2, 1.4.11), in both themes."""
    for is_dark in (False, True):
        shown.evaluate("(dark) => playground.setDark(dark)", is_dark)
        ground, *colours = shown.evaluate(
            """() => {
                const rgb = (text) => text.match(/[0-9]+/g).map(Number);
                const map = playground.collectionMap;
                const of = (isNumber, codes) => {
                    map.isNumber = isNumber;
                    return codes.map((code) => map.colourOf(code));
                };
                return [rgb(getComputedStyle(document.querySelector('.pg-map')).backgroundColor),
                    ...of(false, [...Array(11).keys(), 255]), ...of(true, [0, 60, 127, 190, 254])];
            }"""
        )
        assert min(contrast(ground, colour) for colour in colours) >= 3


def contrast(one: list[float], other: list[float]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(rgb: list[float]) -> float:
    parts = np.array(rgb) / 255
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_tab_fits_a_phone(chromium: Any, playground: PlaygroundProcess) -> None:
    with open_page(chromium, playground.url, phone=True, scheme="dark") as page:
        select_tab(page, "Collection")
        page.wait_for_selector("[data-rows] small")
        page.locator("[data-rows] [data-index='0'] b").click()
        page.click("[data-act=nearest]")
        page.wait_for_selector("[data-panel=collection][data-found]")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        assert axe_violations(page) == []
