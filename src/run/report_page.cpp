#include "run/report_page.hpp"

namespace konclave {

std::string_view report_style() {
  return R"css(
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f7f8fa; --text: #1b2430; --faint: #5b6675; --line: #d8dde4;
  --first: #1f6fd0; --second: #c2570c; --heat-low: #1f6fd0; --heat-middle: #eef0f3; --heat-high: #c8321f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2028; --text: #e6eaf0; --faint: #9aa6b5; --line: #323b47;
    --first: #6db1ff; --second: #ffa657; --heat-low: #3d8bff; --heat-middle: #252c36; --heat-high: #ff6b52;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 84rem; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .7rem; }
.sub { color: var(--faint); margin: .2rem 0 1rem; }
.remark { border-left: 4px solid var(--second); padding: .4rem .8rem; background: var(--card); overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .7rem; }
.tile, figure, .facts section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: .6rem .8rem; }
.tile b { display: block; overflow-wrap: anywhere; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--faint); font-size: .85rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1rem; justify-content: space-between; font-weight: 600; }
figcaption .legend { font-weight: 400; color: var(--faint); font-size: .85rem; }
.key { display: inline-block; width: .9em; height: .3em; margin: 0 .35em .2em .6em; border-radius: 2px; }
.scale { display: inline-block; width: 5rem; height: .6em; margin: 0 .4em; border-radius: 2px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--faint); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .rule { stroke: var(--line); stroke-width: 1; }
canvas { display: block; width: 100%; image-rendering: pixelated; border-radius: 3px; }
.axis { display: flex; justify-content: space-between; color: var(--faint); font-size: .8rem; font-variant-numeric: tabular-nums; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.facts section { padding: .6rem .9rem; min-width: 0; }
.facts h3 { margin: 0 0 .3rem; font-size: 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; font-weight: 400; padding: .15rem .4rem .15rem 0; overflow-wrap: anywhere; }
th { color: var(--faint); width: 40%; }
.below { margin-top: 1rem; }
.below .bars div { grid-template-columns: minmax(8rem, 26rem) 1fr 6.5rem; }
.bars div { display: grid; grid-template-columns: 8rem 1fr 6.5rem; gap: .6rem; align-items: center; font-size: .9rem; }
.bars i { display: block; height: .75rem; min-width: 1px; background: var(--first); border-radius: 2px; }
.bars em { font-style: normal; text-align: right; font-variant-numeric: tabular-nums; }
@media (max-width: 34rem) { body { padding: .8rem; } .below .bars div { grid-template-columns: 9rem 1fr 5.5rem; } }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; overflow: auto; font-size: .85rem; }
#tip { position: fixed; pointer-events: none; display: none; z-index: 1; background: var(--text); color: var(--page);
  padding: .2rem .5rem; border-radius: 4px; font-size: .85rem; max-width: 20rem; font-variant-numeric: tabular-nums; }
@media print { figure, .tile, .facts section { break-inside: avoid; } }
)css";
}

std::string_view report_body() {
  return R"html(<main>
<header><h1 id="name"></h1><p class="sub" id="state"></p><div id="remarks"></div><div class="tiles" id="tiles"></div></header>
<noscript><p class="remark">The curves are drawn by a script in this page; the numbers are in it as JSON.</p></noscript>
<div id="parts"></div>
</main>
<div id="tip" role="status"></div>
)html";
}

}  // namespace konclave
