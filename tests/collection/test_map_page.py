"""The map's page shows every name, value and caption as it is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from browser import browser, open_page
from nasty_texts import NASTY_TEXTS
from qwen_audio.collection.projection import Projection
from qwen_audio.paths import file_name

COUNT = len(NASTY_TEXTS)

EACH_COLUMN = """() => {
  const [titles, counts] = [[], []];
  for (const option of [...colour.options].slice(1)) {
    colour.value = option.value;
    colour.dispatchEvent(new Event("change"));
    titles.push(document.querySelector("#map .cbtitle").textContent);
    counts.push(map.data[0].marker.color.length);
  }
  return [titles, counts];
}"""
"""The titles of the colour bars of all columns but the first, and how many points they colour."""
EACH_LABEL = """() => data.x.map(() => {
  document.getElementById("next").click();
  return label.textContent;
})"""
POSITION = """point => {
  const box = map.getBoundingClientRect(), layout = map._fullLayout;
  return [box.x + layout._size.l + layout.xaxis.d2p(data.x[point]),
    box.y + layout._size.t + layout.yaxis.d2p(data.y[point])];
}"""
"""Of a point of the map in the window, in pixels."""


def nasty_projection(texts: list[str]) -> Projection:
    """A point a text: its file name, caption, and value in columns of these names."""
    names = [text.replace("/", "∕") for text in texts]
    rows = tuple(
        {
            "source": f"/music/{name}",
            "start_seconds": 0.0,
            "end_seconds": 1.0,
            "caption": text,
            "kind": text,
            **{column: k + number for number, column in enumerate(texts)},
        }
        for k, (name, text) in enumerate(zip(names, texts, strict=True))
    )
    points = np.random.default_rng(0).normal(size=(len(texts), 2)).astype(np.float32)
    return Projection(texts[0], "pca", points, rows, ("kind", *texts))


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_data_in_a_script_cannot_end_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")
    projection = nasty_projection([text, "other"])
    page = projection.to_html(audio="none", colour=text)[0]
    page.encode()
    (line,) = [line for line in page.split("\n") if line.startswith("const data = ")]
    data = json.loads(line.removeprefix("const data = ").removesuffix(";"))
    assert not set("<>&\u2028\u2029") & set(line)
    assert [column["name"] for column in data["columns"]] == ["kind", text, "other"]
    assert data["colour"] == 1
    assert set(data["columns"][0]["categories"]) == {text, "other"}
    assert data["captions"] == [text, "other"]
    assert data["names"][0] == file_name(projection.rows[0]["source"])
    plain = nasty_projection(["a", "b"]).to_html(audio="none")[0]
    assert page.count("<") - page.split("</title>")[0].count("<") == (
        plain.count("<") - plain.split("</title>")[0].count("<")
    )


@pytest.mark.slow
def test_a_browser_shows_them_as_written(tmp_path: Path) -> None:
    projection = nasty_projection(NASTY_TEXTS)
    path = projection.write_html(tmp_path / "map.html", audio="none").path
    with browser() as chromium, open_page(chromium, path.as_uri(), "#map .legendtext") as page:
        options = page.eval_on_selector_all("#colour option", "all => all.map(o => o.textContent)")
        assert options == list(projection.columns)
        shown = page.eval_on_selector_all(".legendtext", "all => all.map(t => t.textContent)")
        assert sorted(map(as_drawn, shown)) == sorted(map(as_drawn, NASTY_TEXTS))
        titles, counts = page.evaluate(EACH_COLUMN)
        assert list(map(as_drawn, titles)) == list(map(as_drawn, NASTY_TEXTS))
        assert counts == [COUNT] * COUNT
        for label, row in zip(page.evaluate(EACH_LABEL), projection.rows, strict=True):
            assert label.startswith(f"{file_name(row['source'])} 0:00")
            assert label.endswith(f"{row['caption']} (no audio in this page)")
        number = next(k for k, text in enumerate(NASTY_TEXTS) if "href" in text)
        page.mouse.move(*page.evaluate(POSITION, number))
        hover = as_drawn(page.text_content("#map .hovertext"))
        assert hover.startswith(as_drawn(f"{file_name(projection.rows[number]['source'])} 0:00"))
        assert hover.endswith(as_drawn(NASTY_TEXTS[number]))
        assert not page.locator("#map a, body img, body iframe, #label b *").count()
        assert page.locator("script").count() == 2
        assert page.title() == NASTY_TEXTS[0]


def as_drawn(text: str) -> str:
    """SVG and the title's normalisation of blanks aside."""
    return "".join(text.split())
