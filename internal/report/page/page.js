// The charts of the report: what the records say, drawn anew when a switch changes.
"use strict";
(() => {
  const lab = JSON.parse(document.getElementById("lab").textContent);
  const OURS = "aikf", FLOOR = "read floor", OWN = "read floor, own dtype";
  const byID = id => document.getElementById(id);
  const unique = list => [...new Set(list)];
  const profiled = s => s.profiles.machine?.cpu ?? s.profiles.gpu.name;
  const isFloor = name => name === FLOOR || name === OWN;

  // element makes one, with properties and children.
  function element(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made) made[key] = value; else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  // cases are the results of all records; of the same case, that of the newest.
  function gather() {
    const newest = new Map();
    const records = lab.sources.filter(s => s.bench).sort((a, b) => a.bench.date.localeCompare(b.bench.date));
    for (const { file, bench } of records) {
      for (const r of bench.results ?? []) {
        const c = {
          ...r, file,
          subject: bench.gpu ? bench.gpu.name : bench.machine.cpu,
          condition: r.mode ? `${r.mode}, ${r.cache}` : `${r.tier}, ${r.threads} thread${r.threads > 1 ? "s" : ""}`,
          plain: r.source === "random" || r.source === "real",
        };
        c.key = [c.subject, c.condition, c.work, c.sampling, c.source, c.batch, c.vocab, c.top_k, c.dtype, c.base_offset].join("|");
        c.times = [{ name: OURS, us: r.ours_us, low: r.ours_us_p10, high: r.ours_us_p90 }, { name: FLOOR, us: r.floor_us, low: r.floor_us_p10, high: r.floor_us_p90 }];
        if (!r.mode && r.dtype !== "float32") c.times.push({ name: OWN, us: r.dtype_floor_us, low: r.dtype_floor_us_p10, high: r.dtype_floor_us_p90 });
        c.own_ratio = r.ours_us / r.dtype_floor_us;
        for (const [name, p] of Object.entries(r.peers ?? {})) c.times.push({ name, us: p.us, low: p.us_p10, high: p.us_p90, wrong: !p.values_equal || p.doubts?.length, text: p.protocol_us > 0 });
        if (r.reference && !(r.peers ?? {})[r.reference]) c.times.push({ name: r.reference, us: r.reference_us, low: r.reference_us_p10, high: r.reference_us_p90 });
        newest.set(c.key, c);
      }
    }
    return [...newest.values()];
  }

  const cases = gather();
  // Those that are met most come first, with the colours that are told apart best.
  const first = ["torch", "typed heap", "numpy", "onnxruntime", "flashinfer"];
  const contestants = unique(cases.flatMap(c => c.times.map(t => t.name))).filter(n => n !== OURS && !isFloor(n))
    .sort((a, b) => (first.indexOf(a) + 1 || 99) - (first.indexOf(b) + 1 || 99) || a.localeCompare(b));
  const shown = new Set([FLOOR, OWN, ...contestants]);
  const colours = new Map([[OURS, "var(--ours)"], [FLOOR, "var(--read-floor)"], [OWN, "var(--own-floor)"], ...contestants.map((n, i) => [n, `var(--c${i % 8})`])]);
  const chosen = {}; // by the name of a chart: the group that it shows

  // digits shows three or four.
  const digits = x => x < 1 ? x.toFixed(3) : x < 100 ? x.toFixed(2) : Math.round(x).toLocaleString("en");
  const named = c => `${c.batch} x ${c.top_k}` + (c.vocab === lab.vocab ? "" : `, V ${c.vocab.toLocaleString("en")}`) +
    (c.source === "real" ? ", real" : "") + (c.base_offset ? `, offset ${c.base_offset}` : "");
  const inOrder = (a, b) => a.vocab - b.vocab || a.batch - b.batch || a.top_k - b.top_k || (a.base_offset ?? 0) - (b.base_offset ?? 0) || (a.source === "real") - (b.source === "real");
  const selected = () => cases.filter(c => c.subject === byID("subject").value && c.condition === byID("condition").value && c.dtype === byID("dtype").value);
  // elsewhere says under which other conditions of the machine there is such a case.
  const elsewhere = wanted => {
    const found = unique(cases.filter(c => c.subject === byID("subject").value && wanted(c)).map(c => `${c.condition}, ${c.dtype}`));
    return found.length ? ` There are some of: ${found.join("; ")}.` : "";
  };
  const visible = c => c.times.filter(t => t.name === OURS || shown.has(t.name));
  const told = (c, t) => `${t.name}: ${digits(t.us)} us (${digits(t.low)} to ${digits(t.high)})${t.wrong ? ", NOT BELIEVED" : ""}\n${named(c)}, ${c.source} rows\n${c.file}`;
  const ticksOf = values => values.toSorted((a, b) => a - b).reduce((kept, v) => kept.length && v / kept.at(-1) < 1.4 ? kept : [...kept, v], []);
  const base = { style: { background: "transparent", fontSize: "12px" }, marginTop: 24 };
  const log = (values, rest) => {
    const [low, high] = d3.extent(values);
    const decades = Math.log10(high / low);
    return { type: "log", grid: true, ticks: decades > 2 ? 4 : 5, tickFormat: x => d3.format("~r")(Number(x.toPrecision(3))), domain: [low / 1.15, high * 1.15], ...rest };
  };

  // Each chart returns what it shows: points, one for each mark, as rows of a
  // table under heads; and the options of the plot.
  const charts = {
    speedups() {
      const all = selected().filter(c => c.work === "topk" && c.plain).sort(inOrder);
      const usual = all.filter(c => c.source === "real" || lab.matrix.some(m => m[0] === c.batch && m[1] === c.vocab && m[2] === c.top_k) && !c.base_offset);
      const options = usual.length && usual.length < all.length ? ["the reference matrix", "all shapes"] : ["all shapes"];
      const group = options.includes(chosen.speedups) ? chosen.speedups : options[0];
      const points = (group === "all shapes" ? all : usual).flatMap(c => visible(c).filter(t => t.name !== OURS && !isFloor(t.name) && !t.text)
        .map(t => ({ name: t.name, y: named(c), x: t.us / c.ours_us, wrong: t.wrong, title: `${digits(t.us / c.ours_us)}x, ${told(c, t)}` })));
      if (!points.length) return { title: "Speed-ups", why: "Nothing was measured beside ours under these conditions; --against torch, or another software, does it." };
      return {
        title: "Time of others over ours", options: options.length > 1 ? options : null, group, heads: ["case", "against", "speed-up"], values: points.map(p => [p.y, p.name, digits(p.x) + "x"]), points,
        legend: unique(points.map(p => p.name)),
        plot: width => ({
          ...base, width, height: 70 + 26 * unique(points.map(p => p.y)).length, marginLeft: 136, marginBottom: 40,
          x: log([1, ...points.map(p => p.x)], { label: "times faster" }), y: { type: "point", domain: unique(points.map(p => p.y)), label: null, grid: true },
          marks: [Plot.ruleX([1], { stroke: "var(--bad)", strokeWidth: 2 }),
            Plot.dot(points, { x: "x", y: "y", r: 5, fill: p => p.wrong ? "var(--paper)" : colours.get(p.name), stroke: p => colours.get(p.name), title: "title", tip: true })],
        }),
      };
    },
    rows: () => latency("rows", "batch", [["vocab", "V"], ["top_k", "k"]]),
    vocab: () => latency("vocab", "vocab", [["batch", "rows"], ["top_k", "k"]]),
    k: () => latency("k", "top_k", [["batch", "rows"], ["vocab", "V"]]),
    floor() {
      const rows = selected().filter(c => c.work === "topk" && c.source === "random" && !c.base_offset);
      const groups = d3.group(rows, c => `V ${c.vocab.toLocaleString("en")}`);
      const options = [...groups.keys()].sort((a, b) => groups.get(b).length - groups.get(a).length);
      if (!options.length) return { title: "Distance from the floor", why: "No record has random rows under these conditions." };
      const group = options.includes(chosen.floor) ? chosen.floor : options[0];
      const points = groups.get(group).map(c => ({ x: c.top_k, y: c.batch, ratio: c.own_ratio, title: `${digits(c.own_ratio)}x the floor\nours ${digits(c.ours_us)} us, floor ${digits(c.dtype_floor_us)} us\n${named(c)}\n${c.file}` }));
      const sorted = key => unique(points.map(p => p[key])).sort((a, b) => a - b);
      const top = Math.max(2, d3.max(points, p => p.ratio));
      return {
        title: "Our time over the floor's", options, group, points, heads: ["rows", "k", "x floor"], values: points.map(p => [p.y, p.x, digits(p.ratio)]),
        plot: width => ({
          ...base, width: Math.min(width, 120 + 90 * sorted("x").length), height: 80 + 40 * sorted("y").length, marginLeft: 55, marginBottom: 40,
          x: { type: "band", domain: sorted("x"), label: "k", tickFormat: String }, y: { type: "band", domain: sorted("y"), label: "rows", tickFormat: String },
          color: { type: "log", scheme: "YlOrRd", domain: [1, top] },
          marks: [Plot.cell(points, { x: "x", y: "y", fill: "ratio", inset: 1, title: "title", tip: true }),
            Plot.text(points, { x: "x", y: "y", text: p => p.ratio.toFixed(1), fill: p => Math.log(p.ratio) / Math.log(top) > .6 ? "white" : "black", pointerEvents: "none" })],
        }),
      };
    },
    phases() {
      const profiles = lab.sources.filter(s => s.profiles && profiled(s) === byID("subject").value).flatMap(s => s.profiles.profiles.map(p => ({ ...p, file: s.file })));
      if (!profiles.length) return { title: "Stages and phases", why: "No profile of this machine is here." };
      const y = p => `${p.batch} x ${p.top_k}, ${p.dtype}, ${p.plan?.name ?? p.tier ?? p.sampling}`;
      const points = profiles.flatMap(p => p.parts.map(part => ({ y: y(p), name: part.name, us: part.us, title: `${part.name}: ${digits(part.us)} us, ${Math.round(100 * part.share)} %\n${y(p)}, V ${p.vocab.toLocaleString("en")}\ncall ${digits(p.call_us)} us, floor ${digits(p.floor_us)} us\n${p.file}` })));
      const parts = unique(points.map(p => p.name));
      const fill = new Map(parts.map((n, i) => [n, `var(--c${i % 8})`]));
      return {
        title: "Stages and phases of a call", points, heads: ["case", "part", "us"], values: points.map(p => [p.y, p.name, digits(p.us)]), legend: parts, fill,
        notes: "solid line: the whole call; dashed: the read floor",
        plot: width => ({
          ...base, width, height: 70 + 54 * profiles.length, marginLeft: width < 500 ? 10 : 190, marginBottom: 40,
          x: { label: "us", grid: true }, y: { type: "band", label: null, domain: unique(points.map(p => p.y)), axis: width < 500 ? null : "left", padding: .35 },
          marks: [Plot.barX(points, { x: "us", y: "y", fill: p => fill.get(p.name), order: null, title: "title", tip: true, inset: .5 }),
            Plot.tickX(profiles, { x: "call_us", y, stroke: "currentColor", strokeWidth: 2 }),
            Plot.tickX(profiles, { x: "floor_us", y, stroke: "currentColor", strokeWidth: 2, strokeDasharray: "4 3" }),
            width < 500 ? Plot.text(profiles, { y, text: y, frameAnchor: "left", dy: -26, textAnchor: "start" }) : null],
        }),
      };
    },
    adversarial() {
      const all = selected().filter(c => c.work === "topk" && !c.base_offset);
      const hard = all.filter(c => !c.plain).sort(inOrder);
      if (!hard.length) return { title: "Adversarial rows", why: "No record has adversarial rows under these conditions: aikf bench --rows adversarial makes one." + elsewhere(c => c.work === "topk" && !c.plain) };
      const shapes = unique(hard.map(named));
      const fill = new Map(shapes.map((n, i) => [n, `var(--c${i % 8})`]));
      const points = hard.map(c => ({ name: named(c), y: c.source, x: c.floor_ratio, title: `${digits(c.floor_ratio)}x the floor, ${told(c, c.times[0])}` }));
      const usual = all.filter(c => c.source === "random" && shapes.includes(named(c)));
      return {
        title: "Our time over the floor's, on rows made to hurt", points, heads: ["rows", "case", "x floor"], values: points.map(p => [p.y, p.name, digits(p.x)]), legend: shapes, fill,
        notes: "vertical line: random rows of the same shape",
        plot: width => ({
          ...base, width, height: 70 + 24 * unique(points.map(p => p.y)).length, marginLeft: 90, marginBottom: 40,
          x: log([1, ...points.map(p => p.x), ...usual.map(c => c.floor_ratio)], { label: "x floor" }), y: { type: "point", label: null, grid: true, domain: unique(points.map(p => p.y)) },
          marks: [Plot.ruleX(usual, { x: "floor_ratio", stroke: c => fill.get(named(c)), strokeDasharray: "4 3" }),
            Plot.dot(points, { x: "x", y: "y", r: 5, fill: p => fill.get(p.name), title: "title", tip: true })],
        }),
      };
    },
    sampling() {
      const rows = selected().filter(c => c.work === "sample").sort(inOrder);
      if (!rows.length) return { title: "Sampling", why: "No record samples under these conditions." + elsewhere(c => c.work === "sample") };
      const points = rows.flatMap(c => visible(c).map(t => ({ name: t.name, y: `${c.sampling}, ${named(c)}`, x: t.us, low: t.low, high: t.high, title: told(c, t) })));
      return {
        title: "Time of a call that draws a token for each row", points, heads: ["case", "whose", "us"], values: points.map(p => [p.y, p.name, digits(p.x)]), legend: unique(points.map(p => p.name)),
        plot: width => ({
          ...base, width, height: 70 + 26 * unique(points.map(p => p.y)).length, marginLeft: 190, marginBottom: 40,
          x: log(points.flatMap(p => [p.low, p.high]), { label: "us" }), y: { type: "point", label: null, grid: true, domain: unique(points.map(p => p.y)) },
          marks: [Plot.ruleY(points, { x1: "low", x2: "high", y: "y", stroke: p => colours.get(p.name), strokeWidth: 3, strokeOpacity: .4 }),
            Plot.dot(points, { x: "x", y: "y", r: 5, fill: p => colours.get(p.name), title: "title", tip: true })],
        }),
      };
    },
  };

  // latency draws times against one dimension, the others fixed by a switch.
  function latency(name, x, fixed) {
    const title = `Latency against ${name}`;
    const rows = selected().filter(c => c.work === "topk" && c.source === "random" && !c.base_offset);
    const groups = d3.group(rows, c => fixed.map(([field, label]) => `${label} ${c[field].toLocaleString("en")}`).join(", "));
    const usual = all => (all[0].batch === 1) + (all[0].vocab === lab.vocab) + (all[0].top_k === 50);
    const options = [...groups.keys()].filter(g => groups.get(g).length > 1).sort((a, b) => groups.get(b).length - groups.get(a).length || usual(groups.get(b)) - usual(groups.get(a)));
    if (!options.length) return { title, why: `No record has rows that differ in ${name} alone under these conditions.` };
    const group = options.includes(chosen[name]) ? chosen[name] : options[0];
    const points = groups.get(group).sort((a, b) => a[x] - b[x]).flatMap(c => visible(c).map(t => ({ name: t.name, x: c[x], us: t.us, low: t.low, high: t.high, title: told(c, t) })));
    const stroke = p => colours.get(p.name);
    const xs = unique(points.map(p => p.x));
    return {
      title, options, group, points, heads: [name, "whose", "us", "p10", "p90"], values: points.map(p => [p.x, p.name, digits(p.us), digits(p.low), digits(p.high)]), legend: unique(points.map(p => p.name)),
      plot: width => ({
        ...base, width, height: Math.max(260, Math.min(380, width * .55)), marginLeft: 52, marginRight: 24, marginBottom: 40,
        x: log(xs, { label: name, axis: null, grid: false }), y: log(points.flatMap(p => [p.low, p.high]), { label: "us" }),
        marks: [Plot.axisX(ticksOf(xs), { text: String, label: name }), Plot.areaY(points, { x: "x", y1: "low", y2: "high", z: "name", fill: stroke, fillOpacity: .18 }),
          Plot.line(points, { x: "x", y: "us", z: "name", stroke, strokeWidth: 2 }),
          Plot.dot(points, { x: "x", y: "us", r: 3.5, fill: stroke, title: "title", tip: true })],
      }),
    };
  }

  const swatch = colour => element("i", { className: "swatch", style: `background:${colour}` });

  // draw fills one figure.
  function draw(figure) {
    const open = figure.querySelector("details")?.open;
    const name = figure.dataset.chart;
    const chart = charts[name]();
    figure.replaceChildren(element("h3", { textContent: chart.title }));
    figure.dataset.points = chart.points?.length ?? 0;
    if (chart.why) {
      figure.append(element("p", { className: "none", textContent: chart.why }));
      return;
    }
    if (chart.options) {
      const select = element("select", { "aria-label": `${chart.title}, at` }, ...chart.options.map(o => element("option", { value: o, textContent: o, selected: o === chart.group })));
      select.onchange = () => {
        chosen[name] = select.value;
        draw(figure);
        figure.querySelector("select").focus();
      };
      figure.append(select);
    }
    if (chart.legend) {
      figure.append(element("div", { className: "legend" }, ...chart.legend.map(n => element("span", {}, swatch((chart.fill ?? colours).get(n)), n)), ...(chart.notes ? [chart.notes] : [])));
    }
    const svg = Plot.plot(chart.plot(Math.max(280, figure.clientWidth - 20)));
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${chart.title}; the values stand in the table below`);
    figure.append(svg, element("details", { open: !!open }, element("summary", { textContent: "Values" }),
      element("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": "values" }, element("table", {},
        element("thead", {}, element("tr", {}, ...chart.heads.map(h => element("th", { scope: "col", textContent: h })))),
        element("tbody", {}, ...chart.values.map(row => element("tr", {}, ...row.map(v => element("td", { textContent: v })))))))));
  }

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const drawAll = () => figures.forEach(draw);

  // offer fills a switch; it keeps what was chosen where that is still there.
  function offer(id, values, wish) {
    const select = byID(id), old = select.value;
    select.replaceChildren(...values.map(v => element("option", { value: v, textContent: v })));
    select.value = values.includes(old) ? old : values.includes(wish) ? wish : values[0] ?? "";
  }
  function offerAll() {
    const count = d3.rollup(cases, all => all.length, c => c.subject);
    offer("subject", unique([...cases.map(c => c.subject), ...lab.sources.filter(s => s.profiles).map(profiled)])
      .sort((a, b) => (count.get(b) ?? 0) - (count.get(a) ?? 0)));
    const here = cases.filter(c => c.subject === byID("subject").value);
    const conditions = d3.rollup(here, all => all.length, c => c.condition);
    offer("condition", [...conditions.keys()].sort((a, b) => conditions.get(b) - conditions.get(a)), "graph, warm");
    offer("dtype", unique(here.filter(c => c.condition === byID("condition").value).map(c => c.dtype)).sort(), "bfloat16");
    const there = new Set(selected().flatMap(c => c.times.map(t => t.name)));
    for (const label of byID("contestants").querySelectorAll("label")) label.hidden = !there.has(label.firstChild.value);
  }

  for (const name of [FLOOR, OWN, ...contestants]) {
    const box = element("input", { type: "checkbox", checked: true, value: name });
    box.onchange = () => {
      if (box.checked) shown.add(name); else shown.delete(name);
      drawAll();
    };
    byID("contestants").append(element("label", {}, box, swatch(colours.get(name)), name));
  }
  byID("controls").onsubmit = e => e.preventDefault();
  for (const id of ["subject", "condition", "dtype"]) {
    byID(id).onchange = () => {
      offerAll();
      drawAll();
    };
  }
  byID("theme").onchange = e => { document.documentElement.style.colorScheme = e.target.value; };
  offerAll();
  drawAll();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) drawAll();
    width = innerWidth;
  });
})();
