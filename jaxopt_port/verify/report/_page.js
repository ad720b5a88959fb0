"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const report = read("report");
  const { curves, maps, first } = read("figures");
  const drawn = new Map(); // element -> function that returns [traces, layout] in the colours in force

  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  // Plotly reads a few tags in its labels; a name is text.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const shortened = (text, width) => text.length <= width ? text
    : `${text.slice(0, width - 1 - (width >> 1))}…${text.slice(text.length - (width >> 1))}`;
  const narrow = matchMedia("(max-width: 40rem)");

  function layout(changes) {
    const axis = { gridcolor: colour("grid"), zeroline: false, automargin: true };
    return {
      paper_bgcolor: colour("ground"), plot_bgcolor: colour("ground"), autosize: true,
      font: { family: "system-ui, sans-serif", size: 13, color: colour("ink") },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("muted"), font: { color: colour("ink") }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("accent") },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      margin: { l: 8, r: 8, t: 40, b: 8 }, ...changes,
      xaxis: { ...axis, ...changes.xaxis }, yaxis: { ...axis, ...changes.yaxis },
    };
  }

  function render(element, make) {
    const config = { responsive: true, displaylogo: false, displayModeBar: narrow.matches ? false : "hover",
      // Named one by one: Plotly's own choice holds a button that sends the figure to a server.
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
      showSendToCloud: false, showLink: false, plotlyServerURL: "" };
    Plotly.react(element, ...make(), config);
  }
  function draw(element, make) {
    drawn.set(element, make);
    render(element, make);
  }
  const redraw = () => drawn.forEach((make, element) => render(element, make));

  // Torch's line is broad and below: where both are the same, both are seen.
  const line = (values, name, torch, dash) => ({
    type: "scatter", mode: values.length < 2 ? "markers" : "lines", name,
    x: values.map((_, at) => at * curves.every), y: values, opacity: torch ? 0.6 : 1,
    line: { color: colour(torch ? "torch" : "accent"), width: torch ? 5 : 2, dash },
    marker: { color: colour(torch ? "torch" : "accent"), size: torch ? 12 : 6 },
    hovertemplate: "%{y:.8g}<extra>%{fullData.name}</extra>",
  });
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  function curve(groups, title) {
    const sides = (values, group, side) => {
      const name = groups.length > 1 ? `${side}, group ${group}` : side;
      return values.length ? [line(values, name, side === "torch", DASHES[group % DASHES.length])] : [];
    };
    const traces = groups.flatMap(({ torch, yours }, group) =>
      [...sides(torch, group, "torch"), ...sides(yours, group, "yours")]);
    return [traces, layout({ height: 320, hovermode: "x unified",
      xaxis: { title: { text: "step" } },
      yaxis: { title: { text: title }, exponentformat: "power", rangemode: title === "loss" ? "normal" : "tozero" } })];
  }

  const INFINITE = -1;
  const level = (ulps) => Math.log10(1 + ulps);
  const measured = (value) => value !== null && value !== INFINITE;

  function colourBar(most) {
    const powers = Array.from({ length: Math.ceil(Math.log10(most)) + 1 }, (_, power) => power);
    const kept = powers.filter((power) => power % Math.ceil(powers.length / 6) === 0 && 10 ** power <= most);
    return { title: { text: "ulps", side: "top" }, thickness: 12, outlinewidth: 0,
      tickvals: [0, ...kept.map((power) => level(10 ** power))],
      ticktext: ["0", ...kept.map((power) => (power < 4 ? String(10 ** power) : `10<sup>${power}</sup>`))] };
  }

  function heatMap(stage) {
    const { leaves, differs, columns, ends, ulps } = maps[stage];
    const text = ulps.map((row, at) => row.map((value) =>
      `${plain(leaves[at])}<br>${value === INFINITE ? "NaN or infinite" : `${value} ulps`}`));
    const shared = { type: "heatmap", x: columns, y: leaves, text, hoverongaps: false,
      hovertemplate: "%{text}<br>step %{x}<extra></extra>",
      xgap: columns.length < 60 ? 1 : 0, ygap: leaves.length < 40 ? 1 : 0 };
    const most = ulps.reduce((high, row) => row.reduce((a, v) => (measured(v) && v > a ? v : a), high), 1);
    const traces = [{ ...shared, z: ulps.map((row) => row.map((v) => (measured(v) ? level(v) : null))),
      zmin: 0, zmax: level(most), colorbar: colourBar(most),
      colorscale: [[0, colour("low")], [0.5, colour("middle")], [1, colour("high")]] }];
    if (ulps.some((row) => row.includes(INFINITE))) {
      traces.push({ ...shared, z: ulps.map((row) => row.map((v) => (v === INFINITE ? 1 : null))),
        zmin: 0, zmax: 1, showscale: false,
        colorscale: [[0, colour("infinite")], [1, colour("infinite")]] });
    }
    const at = first && first.stage === stage ? ends.findIndex((end) => end >= first.step) : -1;
    const mark = { type: "line", x0: at - 0.5, x1: at - 0.5, yref: "paper", y0: 0, y1: 1,
      line: { color: colour("bad"), width: 2, dash: "dash" } };
    const names = leaves.map((leaf, row) =>
      plain(shortened(leaf, narrow.matches ? 12 : 40)) + (differs[row] ? " ✗" : ""));
    // A label needs its room: where rows are thin, every so many has one.
    const every = Math.ceil(leaves.length / 60);
    return [traces, layout({
      height: Math.max(260, Math.min(1100, 110 + leaves.length * 24)), margin: { l: 8, r: 8, t: 16, b: 8 },
      shapes: at < 0 ? [] : [mark],
      xaxis: { type: "category", title: { text: "step" }, showgrid: false, tickangle: 0,
        nticks: narrow.matches ? 4 : 12 },
      yaxis: { type: "category", autorange: "reversed", showgrid: false,
        tickvals: leaves.filter((_, row) => row % every === 0),
        ticktext: names.filter((_, row) => row % every === 0), tickfont: { size: leaves.length > 40 ? 10 : 12 } },
    })];
  }

  function showStage() {
    const stage = byId("stage").value;
    byId("map-caption").textContent = maps[stage].caption;
    draw(byId("map-plot"), () => heatMap(stage));
  }

  // The first click on figures brings the largest to the top; NaN is larger than any.
  function sortable(table) {
    const headers = [...table.tHead.rows[0].cells];
    const key = (row, column) => {
      const { textContent, dataset } = row.cells[column];
      if (!("value" in dataset)) return textContent;
      return dataset.value === "NaN" ? Infinity : Number(dataset.value);
    };
    const order = (a, b) => (typeof a === "number" ? Number(a > b) - Number(a < b)
      : a.localeCompare(b, "en", { numeric: true }));
    headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
      const before = header.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : header.classList.contains("number");
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => order(key(a, column), key(b, column)) * (descending ? -1 : 1));
      table.tBodies[0].append(...rows);
    }));
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => { details.open = true; });
    root.dataset.paper = "";
    redraw();
  });
  addEventListener("afterprint", () => {
    closed.forEach((details) => { details.open = false; });
    delete root.dataset.paper;
    redraw();
  });

  document.querySelectorAll("table").forEach(sortable);
  byId("download").href = URL.createObjectURL(
    new Blob([JSON.stringify(report, null, 1)], { type: "application/json" }));
  if (byId("stage")) {
    byId("stage").addEventListener("change", showStage);
    showStage();
  }
  if (byId("loss-plot")) draw(byId("loss-plot"), () => curve(curves.loss, "loss"));
  if (byId("lr-plot")) draw(byId("lr-plot"), () => curve(curves.lr, "learning rate"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
})();
