"""How the search page looks: one style sheet for light, dark and phone.

Colours and fonts are those of the reports (report.style); a test compares them.
"""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--page:#fff;--line:#d5dae0;
--band:#f3f6f9;--pick:#e6f1fb;--s0:#0072b2;--s1:#bd4b00;--s2:#007a5a}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a3acb7;--page:#14181d;
--line:#3a434d;--band:#1d2329;--pick:#1b3247;--s0:#56b4e9;--s1:#ff8c42;--s2:#2fc79a}}
*{box-sizing:border-box}
[hidden]{display:none!important}
body{margin:0 auto;max-width:88rem;padding:1.25rem 1rem 4rem;background:var(--page);
color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
overflow-wrap:anywhere}
header{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline;margin-bottom:.9rem}
h1{font-size:1.25rem;line-height:1.25;margin:0}
h2{font-size:1.05rem;margin:0}
bdi{unicode-bidi:isolate}
.soft{color:var(--soft);margin:0}
input,button,select{font:inherit;color:inherit;background:var(--page);border:1px solid var(--line);
border-radius:.4rem;padding:.45rem .7rem;min-width:0}
input[type=checkbox]{width:1.05rem;height:1.05rem;margin:0;padding:0;accent-color:var(--s0)}
button{cursor:pointer;background:var(--band);white-space:nowrap}
button:hover,select:hover,input:hover{border-color:var(--soft)}
button.main{background:var(--s0);border-color:var(--s0);color:var(--page);font-weight:600}
:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
form{display:grid;gap:.7rem}
.ask{display:flex;gap:.6rem}
.ask input{flex:1;font-size:1.1rem;padding:.6rem .8rem}
.field{display:grid;gap:.2rem}
.field label,.options>label,legend{color:var(--soft);font-size:.9rem}
.options{display:flex;flex-wrap:wrap;gap:.5rem 1.2rem;align-items:center}
.options>label{display:flex;gap:.45rem;align-items:center}
.options input[type=text]{width:14rem;padding:.35rem .6rem}
.options select,.options button{padding:.35rem .6rem}
fieldset,#candidates{display:flex;flex-wrap:wrap;gap:.35rem 1rem;align-items:center}
fieldset{border:0;margin:0;padding:0;min-width:0}
legend{float:left;padding:0}
fieldset label{display:flex;gap:.4rem;align-items:center}
#status{margin:1.1rem 0 .6rem;min-height:1.5rem}
#status.wrong{border-left:.25rem solid var(--s1);padding:.4rem .8rem;background:var(--band)}
#asked{margin:0 0 .2rem}
.warn{color:var(--s1);margin:0 0 .2rem}
#results{transition:opacity .12s}
#results[aria-busy=true]{opacity:.45}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));
gap:1rem 1.5rem;margin-top:1rem;align-items:start}
.column>header{display:block;margin:0 0 .4rem;padding-bottom:.4rem;
border-bottom:2px solid var(--line)}
.heading{display:flex;gap:.6rem;align-items:baseline}
.value{margin-left:auto;font-variant-numeric:tabular-nums;white-space:nowrap}
.kind{font-size:.85rem;color:var(--soft)}
.badge{padding:.02rem .45rem;border:1px solid currentColor;border-radius:1rem;font-size:.72rem;
font-weight:600;white-space:nowrap}
ol{list-style:none;margin:0;padding:0}
li{padding:.45rem .6rem .5rem;border-bottom:1px solid var(--line);
border-left:.25rem solid transparent}
li.relevant{background:var(--pick);border-left-color:var(--s0)}
li.same{box-shadow:inset 0 0 0 2px var(--s0)}
.line{display:flex;gap:.55rem;align-items:baseline}
.rank{color:var(--soft);min-width:1.6rem;text-align:right;font-variant-numeric:tabular-nums}
.id{font-weight:600;flex:1;min-width:0}
.line .id{font-size:.95rem;line-height:1.35}
.score,.moved{font-variant-numeric:tabular-nums;font-size:.88rem;white-space:nowrap}
.score{color:var(--soft)}
.up{color:var(--s2)}.down{color:var(--s1)}
.text{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;overflow:hidden;
margin:.1rem 0 0 2.15rem;font-size:.9rem;color:var(--soft)}
.whole .text{display:block;white-space:pre-line}
.relevant .text{color:var(--ink)}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
#elsewhere{margin-top:1.8rem}
.scroll{overflow-x:auto;margin-top:.4rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem}
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);
text-align:right;font-weight:400}
th:first-child{text-align:left;min-width:9rem}
thead th{color:var(--soft);white-space:nowrap}
.foot{margin-top:1.4rem;font-size:.88rem}
@media (max-width:40rem){.ask{flex-wrap:wrap}.ask input{flex-basis:100%}.ask button{flex:1 1 auto}
.options input[type=text]{width:9rem}legend{float:none;width:100%}}
"""
