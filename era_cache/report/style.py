"""How pages look: one style sheet for light, dark, phone and paper.

``--s0`` to ``--s5`` are the colours of the candidates in charts, the first two also those of gains
and losses. Texts keep a contrast of 4.5 to 1 in both themes.
"""

from __future__ import annotations

__all__ = ["CSS"]

_LIGHT = """--ink:#1b1f24;--soft:#59636e;--page:#fff;--line:#d5dae0;--band:#f3f6f9;--pick:#e6f1fb;
--s0:#0072b2;--s1:#bd4b00;--s2:#007a5a;--s3:#a8477f;--s4:#856000;--s5:#5b5bd6"""
_DARK = """--ink:#e6e9ed;--soft:#a3acb7;--page:#14181d;--line:#3a434d;--band:#1d2329;--pick:#1b3247;
--s0:#56b4e9;--s1:#ff8c42;--s2:#2fc79a;--s3:#e69ac3;--s4:#f0c045;--s5:#a5a5ff"""

CSS = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
@media print{{:root{{color-scheme:light;{_LIGHT}}}}}
""" + (
    """
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0 auto;max-width:66rem;padding:1.5rem 1rem 4rem;background:var(--page);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
overflow-wrap:anywhere}
a{color:var(--s0)}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}
h2{font-size:1.25rem;line-height:1.3;margin:2.75rem 0 .5rem;padding-top:1rem;
border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.75rem 0 .25rem}
.lead{text-wrap:pretty;font-size:1.2rem;line-height:1.45;margin:0 0 .5rem;max-width:54rem}
.soft,caption,.detail,figcaption{color:var(--soft)}
p.soft{font-size:.9rem;margin:.4rem 0;max-width:54rem}
header p.soft{font-size:1rem}
.skip{position:absolute;left:-100rem;background:var(--page);padding:.5rem 1rem}
.skip:focus{left:1rem;top:.5rem;z-index:3}
nav ol{list-style:none;margin:1.25rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.15rem 1.1rem}
nav a{display:inline-block;padding:.15rem 0;font-size:.92rem;text-decoration:none}
nav a:hover{text-decoration:underline}
.scroll{overflow-x:auto;margin:.5rem 0;position:relative}
:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal;
font-size:.94rem}
caption{text-align:left;padding-bottom:.4rem;font-size:.9rem}
caption span{display:block;width:max-content;max-width:min(54rem,calc(100vw - 3.2rem));
margin-right:-60rem}
th,td{padding:.36rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th:first-child{padding-left:.4rem}
thead th{border-bottom:2px solid var(--line);vertical-align:bottom;font-weight:600}
tbody th{font-weight:400}
tfoot th,tfoot td{border-top:2px solid var(--line);font-weight:600}
tr[hidden]{display:none}
.numeric tbody th,.numeric tfoot th{white-space:nowrap}
.numeric th:first-child{position:sticky;left:0;background:var(--page);z-index:1}
.numeric td,.numeric thead th{text-align:right;white-space:nowrap}
.numeric thead th:first-child,.numeric .w{text-align:left}
.numeric .l,.plain .l{white-space:normal;overflow-wrap:anywhere;min-width:13rem}
.numeric thead .h,.numeric .h button{white-space:normal;overflow-wrap:anywhere}
.numeric .h{min-width:9rem}
.plain td{overflow-wrap:anywhere}
.detail{display:block;font-size:.82rem;font-weight:400}
.stars{display:inline-block;text-align:left}
.heat .stars{position:absolute;width:auto}
.k1{width:.6em}.k2{width:1.15em}.k3{width:1.7em}
.best{font-weight:700;text-decoration:underline;text-underline-offset:.2em}
.numeric tr.chosen>*{background:var(--pick)}
.numeric tr.chosen th{font-weight:700}
.badge{margin-left:.5rem;padding:.05rem .45rem;border:1px solid currentColor;border-radius:1rem;
font-size:.72rem;font-weight:600}
.tight{font-size:.86rem}
.tight th,.tight td{padding:.3rem .45rem}
.tight .badge{display:block;width:fit-content;margin:0}
.heat td{text-align:center;border:1px solid var(--page);padding:.3rem .4rem}
.heat thead th+th{text-align:center}
.heat .detail{color:inherit}
.heat td:last-child{padding-right:.5rem}
.heat.tight td{padding:.25rem .15rem;font-size:.78rem;min-width:2.7rem}
.heat.tight tbody th{white-space:normal;min-width:7rem;max-width:9rem;overflow-wrap:anywhere;
line-height:1.3}
.heat.tight .detail{font-size:.72rem}
.heat.tight thead th+th{padding:.3rem .2rem}
.heat.tight thead th+th button span{display:inline-block;writing-mode:vertical-rl;
transform:rotate(180deg);max-height:11rem;white-space:normal}
.up1{background:color-mix(in srgb,var(--s0) 9%,var(--page))}
.up2{background:color-mix(in srgb,var(--s0) 19%,var(--page))}
.up3{background:color-mix(in srgb,var(--s0) 29%,var(--page))}
.up4{background:color-mix(in srgb,var(--s0) 40%,var(--page))}
.down1{background:color-mix(in srgb,var(--s1) 9%,var(--page))}
.down2{background:color-mix(in srgb,var(--s1) 19%,var(--page))}
.down3{background:color-mix(in srgb,var(--s1) 29%,var(--page))}
.down4{background:color-mix(in srgb,var(--s1) 40%,var(--page))}
.scale{display:flex;align-items:center;gap:.5rem;font-size:.85rem;margin:.5rem 0;flex-wrap:wrap}
.scale span span{display:inline-block;width:1.6rem;height:1rem;vertical-align:middle}
th button{position:relative;font:inherit;color:inherit;background:none;border:0;padding:0;
cursor:pointer;text-align:inherit;white-space:nowrap}
th button::after{content:"\\2195";position:absolute;left:100%;width:1em;text-align:center;opacity:0}
th button:hover::after,th button:focus-visible::after{opacity:.6}
.numeric thead th[aria-sort] button::after{opacity:1}
th[aria-sort=ascending] button::after{content:"\\2191"}
th[aria-sort=descending] button::after{content:"\\2193"}
.filter{display:flex;gap:.6rem;align-items:center;font-size:.9rem;margin:.75rem 0 .25rem}
.filter input{font:inherit;color:inherit;background:var(--page);border:1px solid var(--soft);
border-radius:.3rem;padding:.25rem .5rem;width:15rem;max-width:60vw}
details{margin:1rem 0}
summary{cursor:pointer;font-weight:600}
figure{margin:.75rem 0 1rem}
figure svg{display:block;width:100%;min-width:34rem;max-width:46rem;height:auto}
figure svg text{font-family:inherit!important;font-variant-numeric:tabular-nums}
figcaption{font-size:.9rem;max-width:54rem}
.code{position:relative}
pre{background:var(--band);padding:.8rem 1rem;overflow-x:auto;margin:.5rem 0;border-radius:.3rem;
font-size:.88rem;overflow-wrap:normal}
.copy{position:absolute;top:.4rem;right:.4rem;font:inherit;font-size:.82rem;color:var(--ink);
background:var(--page);border:1px solid var(--soft);border-radius:.3rem;padding:.15rem .6rem;
cursor:pointer}
.copy+pre{padding-right:5.5rem}
@media (min-width:84rem){body{max-width:82rem}
.with-nav{display:grid;grid-template-columns:12.5rem minmax(0,66rem);gap:0 2.5rem}
.with-nav>nav{grid-row:1/3;position:sticky;top:1rem;align-self:start;max-height:calc(100vh - 2rem);
overflow-y:auto;padding:.2rem}
.with-nav>nav ol{display:block;margin:.2rem 0}
.with-nav>nav a{display:block;padding:.2rem 0}
.with-nav>header,.with-nav>main{grid-column:2}}
@media (max-width:40rem){th,td{padding:.35rem .45rem}table{font-size:.9rem}
.numeric th.m,.numeric th.l{max-width:44vw;min-width:8rem;white-space:normal;
overflow-wrap:anywhere}
.numeric td.l{min-width:13rem}.plain .l{min-width:9rem}
.badge{display:block;width:fit-content;margin:0}}
@page{size:A4;margin:14mm}
@media print{body{max-width:none;padding:0;font-size:9.5pt}
.with-nav{display:block}
nav,.skip,.filter,.copy{display:none!important}
.scroll,pre{overflow:visible}
pre,.copy+pre{white-space:pre-wrap;padding:.5rem .7rem;overflow-wrap:anywhere}
h1{font-size:16pt}h2{font-size:12.5pt;margin-top:1.4rem}h3{font-size:10pt}
h2,h3,caption,summary{break-after:avoid}tr,figure,.scale{break-inside:avoid}
.lead{font-size:11.5pt}p.soft,caption,figcaption,header p.soft{font-size:8.5pt}
figure svg{min-width:0;max-width:13.5cm}
pre{font-size:8pt}.badge{font-size:.8em;padding:0 .3rem}
table{font-size:8pt}.tight{font-size:7pt}
th,td,.tight th,.tight td{padding:.14rem .3rem}
.detail{font-size:.85em}
.numeric th:first-child{position:static}
.numeric .h{min-width:1.6cm}
.numeric .m,.numeric .l{white-space:normal;overflow-wrap:anywhere;min-width:2.4cm}
caption span{max-width:17cm}
thead{break-inside:avoid}tfoot{display:table-row-group}
th button{display:contents}th button span{white-space:normal}th button::after{display:none}
.heat.tight td,.heat.tight thead th+th{padding:.1rem .04rem;font-size:6.2pt;min-width:0}
.heat.tight .detail{font-size:5.8pt}
.heat.tight tbody th{min-width:2cm;max-width:3cm}
details{display:block}details::details-content{content-visibility:visible;display:block}
.heat td,.scale span,tr.chosen>*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
)
