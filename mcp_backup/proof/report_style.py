"""The look of the report."""

STYLE = """
:root{--ink:#1c2430;--soft:#667085;--line:#e4e7ec;--paper:#f5f6f8;--card:#fff;--good:#12805c;
--good-bg:#e3f4ec;--bad:#b42318;--bad-bg:#fdecea;--unknown:#946200;--unknown-bg:#fdf3dc;
--restore:#3b6fd4;--examine:#7a5cc9;--checks:#c9822b;--place:#2f9c83}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#2b3340;
--paper:#12161d;--card:#1a2029;--good:#4fc79a;--good-bg:#143427;--bad:#f0877d;--bad-bg:#40201d;
--unknown:#e3b454;--unknown-bg:#3a2f14}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1040px;margin:0 auto;padding:36px 28px 56px}
header{border-left:6px solid var(--tone);padding:4px 0 4px 20px;margin-bottom:28px}
header h1{font-size:34px;line-height:1.2;margin:0 0 6px;color:var(--tone)}
header p{margin:0;max-width:62ch}
header .small{margin-top:10px;max-width:none}
.good{--tone:var(--good);--tone-bg:var(--good-bg)}
.bad{--tone:var(--bad);--tone-bg:var(--bad-bg)}
.unknown{--tone:var(--unknown);--tone-bg:var(--unknown-bg)}
.grid{display:grid;grid-template-columns:1fr 1fr;gap:18px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px 22px;
break-inside:avoid}
.wide{margin-top:18px}
h2{font-size:16px;margin:0 0 2px}
.small,small{color:var(--soft);font-size:13px;margin:0}
.big{font-size:36px;font-weight:650;margin:10px 0 8px;color:var(--tone);
font-variant-numeric:tabular-nums}
.bar{height:8px;border-radius:4px;background:var(--line);overflow:hidden;margin-bottom:8px}
.bar i{display:block;height:100%;background:var(--tone)}
table{width:100%;border-collapse:collapse;margin-top:10px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:500;color:var(--soft);font-size:13px;padding:4px 12px 6px 0}
td{padding:9px 12px 9px 0;border-top:1px solid var(--line);vertical-align:middle}
td:last-child,th:last-child{padding-right:0}
.chip{display:inline-block;padding:1px 10px;border-radius:10px;font-size:13px;font-weight:600;
color:var(--tone);background:var(--tone-bg)}
.late{color:var(--bad);font-weight:600}
.row{display:grid;grid-template-columns:210px 1fr 80px;gap:14px;align-items:center;margin-top:9px}
.row b{text-align:right;font-weight:600;font-variant-numeric:tabular-nums}
.lane{background:var(--paper);border-radius:4px;height:16px;overflow:hidden;white-space:nowrap;
font-size:0}
.lane i{display:inline-block;height:16px;background:var(--restore);border-radius:3px}
.stack{display:flex;height:14px;width:260px;border-radius:3px;overflow:hidden;
background:var(--paper)}
.stack i{height:100%}
.restore{background:var(--restore)}.examine{background:var(--examine)}
.checks{background:var(--checks)}.place,.load{background:var(--place)}
.legend{display:flex;gap:18px;margin:12px 0 0;color:var(--soft);font-size:13px}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
.findings{margin:12px 0;padding:12px 16px 12px 32px;background:var(--bad-bg);border-radius:8px}
code{font:13px ui-monospace,"DejaVu Sans Mono",monospace}
footer{color:var(--soft);font-size:13px;margin-top:24px;max-width:80ch}
@media (max-width:760px){.grid{grid-template-columns:1fr}.row{grid-template-columns:1fr}}
@media print{body{background:#fff}main{padding:0}}
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';style-src 'unsafe-inline'">
<title>$title: $host</title>
<style>$style</style>
</head>
<body>
<main>
<header class="$tone">
<h1>$title</h1>
<p>$text</p>
<p class="small">$host, repository $repository, $made, $program</p>
</header>
<div class="grid">$objectives</div>
<section class="card wide">
<h2>Getting everything back</h2>
<p class="small">in start order, one after the other, by the last drills</p>
$waterfall
</section>
<section class="card wide">
<h2>Sources</h2>
<table>
<tr><th>Source</th><th>Last drill</th><th>Time</th><th>Size</th><th>Loss now</th>
<th>Worst loss</th><th>Drilled</th></tr>
$sources
</table>
</section>
$drill
$walks
<section class="card wide">
<h2>Record</h2>
$record
</section>
<footer><p>$method</p></footer>
</main>
</body>
</html>
"""
