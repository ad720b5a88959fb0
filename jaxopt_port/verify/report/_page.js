"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const raw = read("raw");
  const heat = read("heat-data");
  const config = { responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const drawn = new Map(); // element -> function that returns [traces, layout] in the colours in force

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  // Plotly reads a few tags in its labels; a name is text.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const shortened = (text, width) => text.length <= width ? text
    : `${text.slice(0, width - 1 - (width >> 1))}…${text.slice(text.length - (width >> 1))}`;

  const layout = (changes) => {
    const axis = { gridcolor: colour("grid"), zeroline: false, linecolor: colour("grid"), automargin: true };
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { family: "system-ui, sans-serif", size: 13, color: colour("ink") },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("muted"), font: { color: colour("ink") } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, margin: { l: 8, r: 8, t: 40, b: 8 },
      ...changes, xaxis: { ...axis, ...changes.xaxis }, yaxis: { ...axis, ...changes.yaxis } };
  };

  const draw = (element, make) => {
    drawn.set(element, make);
    return Plotly.react(element, ...make(), config);
  };
  const redraw = () => drawn.forEach((make, element) => Plotly.react(element, ...make(), config));

  // The report writes NaN and infinities as strings; a gap is what a curve can show of them.
  const finite = (values) => values.map((v) => (typeof v === "number" ? v : null));
  const line = (values, name, side, dash) => ({ type: "scatter", mode: values.length < 2 ? "markers" : "lines",
    name, x: values.map((_, step) => step), y: finite(values),
    line: { color: colour(side), width: side === "torch" ? 5 : 2, dash }, opacity: side === "torch" ? 0.6 : 1,
    hovertemplate: "step %{x}<br>%{y:.8g}<extra>%{fullData.name}</extra>" });
  const curve = (traces, title) => [traces, layout({ height: 320, hovermode: "x unified",
    xaxis: { title: { text: "step" } }, yaxis: { title: { text: title }, exponentformat: "power" } })];

  function curves() {
    const { loss_torch, loss_yours, lr_torch, lr_yours } = raw.curves;
    const show = (name, wanted, make) => {
      if (wanted) draw(document.getElementById(`${name}-plot`), make);
      document.getElementById(`${name}-plot`).hidden = !wanted;
      document.getElementById(`${name}-title`).hidden = !wanted;
    };
    const losses = loss_torch.length + loss_yours.length > 0;
    const rates = lr_torch.length + lr_yours.length > 0;
    document.getElementById("curves-section").hidden = !losses && !rates;
    show("loss", losses, () => curve([line(loss_torch, "torch", "torch"), line(loss_yours, "yours", "accent")], "loss"));
    const dashes = ["solid", "dash", "dot", "dashdot"];
    const groups = (sides, word, side) => sides.map((values, group) =>
      line(values, sides.length > 1 ? `${word}, group ${group}` : word, side, dashes[group % dashes.length]));
    show("lr", rates, () => curve([...groups(lr_torch, "torch", "torch"), ...groups(lr_yours, "yours", "accent")], "learning rate"));
  }

  const INFINITE = -1;
  const level = (ulps) => Math.log10(1 + ulps);
  function heatMap(map) {
    const { leaves, torch_names, columns, cells } = map;
    const narrow = window.innerWidth < 640;
    const name = (row) => plain(leaves[row]) + (torch_names[row] ? `<br>torch: ${plain(torch_names[row])}` : "");
    const text = cells.map((row, i) => row.map((v) =>
      `${name(i)}<br>${v === INFINITE ? "infinite" : `${v} ulps`}`));
    const hover = { text, hovertemplate: "%{text}<br>step %{x}<extra></extra>", x: columns,
      y: leaves.map((_, row) => row), xgap: columns.length < 80 ? 1 : 0, ygap: leaves.length < 40 ? 1 : 0 };
    const most = Math.max(1, ...cells.flat().filter((v) => v !== null && v !== INFINITE));
    const powers = Array.from({ length: Math.ceil(Math.log10(most)) + 1 }, (_, p) => p);
    const kept = powers.filter((p) => p % Math.ceil(powers.length / 6) === 0);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const ramp = [[0, colour("wash")], [1, dark ? "#f3f0ff" : "#1e1a78"]];
    ramp.splice(1, 0, [0.5, dark ? "#6d63d9" : "#8f86ee"]);
    const traces = [{ ...hover, type: "heatmap", z: cells.map((row) => row.map((v) => v === null || v === INFINITE ? null : level(v))),
      zmin: 0, zmax: level(most), colorscale: ramp, hoverongaps: false,
      colorbar: { title: { text: "ulps", side: narrow ? "top" : "right" }, orientation: narrow ? "h" : "v", thickness: 12, outlinewidth: 0,
        ...(narrow ? { y: -0.35 } : {}),
        tickvals: [0, ...kept.map((p) => level(10 ** p))], ticktext: ["0", ...kept.map((p) => (p < 4 ? String(10 ** p) : `10<sup>${p}</sup>`))] } }];
    if (cells.some((row) => row.includes(INFINITE))) {
      traces.push({ ...hover, type: "heatmap", z: cells.map((row) => row.map((v) => (v === INFINITE ? 1 : null))),
        colorscale: [[0, colour("infinite")], [1, colour("infinite")]], zmin: 0, zmax: 1, showscale: false, hoverongaps: false });
    }
    const height = Math.max(260, Math.min(2400, 120 + leaves.length * (leaves.length > 60 ? 12 : 22)));
    return [traces, layout({ height, margin: { l: 8, r: 8, t: 16, b: 8 },
      xaxis: { type: "category", title: { text: "step" }, nticks: narrow ? 6 : 16, showgrid: false, tickangle: 0 },
      yaxis: { autorange: "reversed", tickvals: leaves.map((_, row) => row), showgrid: false,
        ticktext: leaves.map((leaf) => plain(shortened(leaf, narrow ? 12 : 36))), tickfont: { size: leaves.length > 60 ? 9 : 12 } } })];
  }

  function heatMaps() {
    const stages = Object.keys(heat);
    if (!stages.length) return;
    const select = document.getElementById("heat-stage");
    stages.forEach((stage) => select.add(new Option(stage, stage)));
    document.getElementById("heat-section").hidden = false;
    const show = () => {
      const map = heat[select.value];
      const infinite = map.cells.some((row) => row.includes(INFINITE));
      document.getElementById("heat-about").textContent =
        `Units in the last place of ${raw.dtype}, on a logarithmic scale, the worst leaf first.`
        + (infinite ? " Red: NaN or infinite on one side only." : "") + (map.note ? ` ${map.note}` : "");
      draw(document.getElementById("heat-plot"), () => heatMap(map));
    };
    select.addEventListener("change", show);
    select.value = raw.first && heat[raw.first.stage] ? raw.first.stage : stages.includes("update") ? "update" : stages[0];
    show();
  }

  function sortable(table) {
    const headers = [...table.tHead.rows[0].cells];
    const key = (row, column) => {
      const cell = row.cells[column];
      return "key" in cell.dataset ? Number(cell.dataset.key) : cell.textContent.trim();
    };
    const order = (a, b) => (typeof a === "number" ? a - b || 0 : a.localeCompare(b, "en", { numeric: true }));
    headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
      const numbers = header.classList.contains("number");
      const now = header.getAttribute("aria-sort");
      // The first click on a figure brings the largest to the top.
      const descending = now === "none" ? numbers : now === "ascending";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => order(key(a, column), key(b, column)) * (descending ? -1 : 1));
      body.append(...rows);
    }));
  }

  function download() {
    const text = JSON.stringify(raw, null, 1);
    document.getElementById("download").href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  }

  function openAtLink() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  download();
  openAtLink();
  addEventListener("hashchange", openAtLink);
  heatMaps();
  curves();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("(max-width: 639px)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", redraw);
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));
})();
