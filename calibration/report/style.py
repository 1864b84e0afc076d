"""How the report's page looks: one style sheet, light and dark, wide and narrow.

It knows colours and spaces. Meaning never rests on colour alone: each coloured mark has a word or a
shape beside it.
"""

from __future__ import annotations

LIGHT = {
    "page": "#fbfbfa",
    "panel": "#ffffff",
    "ink": "#1a1a19",
    "muted": "#5c5b57",
    "line": "#e4e3df",
    "before": "#8a8882",
    "after": "#1f66c1",
    "float": "#b4530a",
    "good": "#19723f",
    "bad": "#b8281f",
    "good-tint": "#eef7f0",
    "bad-tint": "#fdf0ee",
    "mark-tint": "#fde9c8",
}
DARK = {
    "page": "#141413",
    "panel": "#1c1c1a",
    "ink": "#ecebe7",
    "muted": "#a5a39c",
    "line": "#33322e",
    "before": "#85837c",
    "after": "#74adf7",
    "float": "#ee9a55",
    "good": "#58c48b",
    "bad": "#f4857c",
    "good-tint": "#17241c",
    "bad-tint": "#2a1a18",
    "mark-tint": "#4a3512",
}

_RULES = """
*, *::before, *::after { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
p { margin: 0 0 .75rem; max-width: 44rem; }
a { color: var(--after); text-underline-offset: .15em; }
code { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.muted, .note { color: var(--muted); }
.note { font-size: .875rem; }
.overline { color: var(--muted); font-size: .875rem; margin-bottom: 1rem; overflow-wrap: anywhere; }

.verdict { border: 1px solid var(--line); border-left: 6px solid var(--before);
  border-radius: 6px; background: var(--panel); padding: 1.5rem 1.5rem 1rem; }
.verdict.ship { border-left-color: var(--good); background: var(--good-tint); }
.verdict.stop { border-left-color: var(--bad); background: var(--bad-tint); }
.verdict h1 { margin: 0 0 .5rem; font-size: clamp(1.75rem, 5vw, 2.5rem); line-height: 1.15;
  letter-spacing: -.02em; font-weight: 680; }
.ship h1 .mark { color: var(--good); }
.stop h1 .mark { color: var(--bad); }
.verdict ul { margin: 0 0 .75rem; padding: 0; list-style: none; font-weight: 600; }

.figures { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr));
  gap: 1px; margin: 1.25rem 0 0; background: var(--line); border: 1px solid var(--line);
  border-radius: 6px; overflow: hidden; }
.figure { background: var(--panel); padding: 1rem 1.125rem; }
.figure .name { color: var(--muted); font-size: .875rem; }
.figure .value { font-size: 1.75rem; line-height: 1.3; font-weight: 620; letter-spacing: -.01em; }
.figure .more { color: var(--muted); font-size: .8125rem; line-height: 1.45; }

nav { margin: 1.5rem 0 0; font-size: .875rem; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
section { margin-top: 3rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
h2 { margin: 0 0 .75rem; font-size: 1.375rem; line-height: 1.25; letter-spacing: -.01em; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1rem; }
h4 { margin: 1rem 0 0; font-size: .875rem; font-weight: 600; overflow-wrap: anywhere; }

table { border-collapse: collapse; width: 100%; margin: .75rem 0 1rem; font-size: .875rem; }
th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
th, td { padding: .45rem 0 .45rem 1.25rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; }
td { vertical-align: top; overflow-wrap: break-word; }
td .note { font-size: .75rem; line-height: 1.3; }
.graph { display: inline-block; width: 5.75rem; color: var(--muted); }
.graph + code { display: inline-block; width: 17.5rem; padding-top: .12em; white-space: normal;
  vertical-align: top; }
td:has(> .graph), .form { white-space: nowrap; }
.text { text-align: left; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.pill { display: inline-block; padding: 0 .5em; border: 1px solid currentColor; border-radius: 1em;
  font-size: .75rem; white-space: nowrap; }
.pill.lost { color: var(--bad); }
.pill.gained { color: var(--good); }
.pill.changed { color: var(--muted); }
.pill.float { color: var(--float); }
mark { background: var(--mark-tint); color: inherit; border-radius: 2px; padding: 0 .1em;
  font-weight: 600; print-color-adjust: exact; -webkit-print-color-adjust: exact; }

details { margin: .5rem 0 1rem; }
summary { cursor: pointer; color: var(--after); font-size: .9375rem; padding: .25rem 0; }
summary:focus-visible, a:focus-visible { outline: 2px solid var(--after); outline-offset: 2px; }
dl { display: grid; grid-template-columns: minmax(9rem, 14rem) 1fr; gap: .35rem 1.25rem;
  margin: .75rem 0 1rem; font-size: .9375rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }

svg { display: block; }
svg text { fill: var(--muted); font-size: 11px; }
svg .name { fill: var(--ink); paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
svg line { stroke-width: 1; }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--before); }
svg .limit { stroke: var(--float); stroke-width: 1.5; stroke-dasharray: 4 2; }
svg .area, svg .before { fill: var(--before); }
svg .after, svg .quantised circle, svg .clip circle { fill: var(--after); }
svg .kept circle { fill: var(--page); stroke: var(--float); stroke-width: 2; }
svg .cut { stroke: var(--before); }
svg .range { fill: var(--after); opacity: .35; }
svg .point { fill: var(--after); }
.scroll { overflow-x: auto; margin: .25rem 0 1rem; }
.scroll table { margin: 0; }
.chart { width: 100%; height: auto; margin: .25rem 0 .5rem; }
.bars { width: 10rem; max-width: 100%; height: 16px; margin-top: .25rem; }
.interval { width: 100%; max-width: 15rem; height: 18px; margin: .25rem 0; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .8125rem;
  color: var(--muted); margin: .25rem 0 .5rem; }
.legend svg { display: inline-block; width: 12px; height: 12px; vertical-align: -1px;
  margin-right: .4em; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr));
  gap: 1.25rem; margin: 1rem 0; }
.many > div { min-width: 0; }
.many h4 { margin: 0; font-weight: 400; }
.many p { margin: .15rem 0 0; font-size: .75rem; color: var(--muted); }
.spark { width: 100%; height: auto; margin-top: .35rem; }

@media (max-width: 40rem) {
  main { padding: 1.25rem 1rem 3rem; }
  section { margin-top: 2rem; }
  .verdict { padding: 1.125rem 1.125rem .5rem; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .figure { padding: .75rem .875rem; }
  .figure .value { font-size: 1.3125rem; }
  .minor { display: none; }
  .scroll th, .scroll td { padding-left: .625rem; font-size: .8125rem; }
  .graph + code { display: block; width: auto; min-width: 8rem; }
  td:has(> .graph), .form { white-space: normal; }
  .many { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .graph { display: block; }
  .scroll th:first-child, .scroll td:first-child { padding-left: 0; }
  .cards thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .cards, .cards tbody { display: block; }
  .cards tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  .cards td { display: block; position: relative; min-height: 1.8em; border: 0;
    padding: .12rem 0 .12rem 7rem; overflow-wrap: anywhere; }
  .cards td::before { content: attr(data-label); position: absolute; left: 0; width: 6.5rem;
    color: var(--muted); }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  .chart text { font-size: 17px; }
  .chart circle { r: 6px; }
}
@media print {
  html { font-size: 13px; }
  body { font-size: 1rem; }
  main { max-width: none; padding: 0; }
  nav, details:not([open]) { display: none; }
  .verdict, .figures, tr, svg, .many > div { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; }
  section { margin-top: 1.5rem; }
}
"""


def style_sheet() -> str:
    """The whole style sheet; it loads nothing from elsewhere."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}"
    return f":root {{ {_variables(LIGHT)} }}\n{dark}\n{_RULES.strip()}\n"


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())
